"""The triage flow: every record in is a verdict or a dead letter, delivered; written once for gateway and centre.

It names no transport and no runtime. An item is a batch, inference stays on the source's worker, and every sink is a
`FixedPartitionedSink`, because Bytewax commits an epoch without waiting for any other kind.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from bytewax import operators as op
from bytewax.dataflow import Dataflow, Stream
from bytewax.inputs import Source
from bytewax.operators import KeyedStream
from bytewax.outputs import FixedPartitionedSink
from msgspec import Struct

from dataflows.cache.verdict_cache import VerdictCache
from dataflows.observer import Observer
from dataflows.operators.answer import answer
from dataflows.operators.decide import decide
from dataflows.operators.decode import Reading, Records, decode
from dataflows.operators.enrich import Enriching, enrich
from dataflows.operators.repeats import Repeats, drop_repeats
from dataflows.operators.routes import take_routes
from models.classifier import Classifier, Current
from models.contracts.answer import Answer
from models.contracts.event import DeadLetter
from models.contracts.incident import Incident
from models.contracts.policy import ROUTES, Policy, Route
from models.contracts.verdict import Verdict

B = TypeVar("B", bound=Records)
R = TypeVar("R", Verdict, Answer, DeadLetter, Incident)

VerdictSink = FixedPartitionedSink[list[Verdict], Any]
DeadLetterSink = FixedPartitionedSink[list[DeadLetter], Any]


class Outlet(Struct, frozen=True):
    """A way out: a sink, and the routes it asked for. The name is part of the recovery state: keep it."""

    name: str
    sink: VerdictSink
    routes: tuple[Route, ...] = ROUTES
    when: dict[str, str] = {}  # facts that all have to be known of an event


def triage(
    source: Source[B],
    classifier: Current[Classifier],
    policy: Current[Policy],
    outlets: Sequence[Outlet],
    dead_letters: DeadLetterSink,
    *,
    readings: Mapping[str, Reading],
    repeats: Repeats,
    cache: VerdictCache,
    window_events: int,
    wait: Callable[[float], bool],
    observer: Observer,
    lane: str = "",
    centre_is_away: Callable[[], bool] = lambda: False,
    enriching: Enriching | None = None,
) -> Dataflow:
    """Lay the flow out; nothing runs yet.

    Args:
        source: hands over records in batches; one item is one batch.
        classifier: the one in force, read anew for every window.
        policy: the one in force, read anew for every window.
        outlets: where verdicts go, each with the routes it takes.
        dead_letters: where records go that cannot have a verdict.
        readings: how the records of a source are read, by its name; a source that is not named is plain text.
        repeats: how long an id is remembered, so that its repeats are dropped.
        cache: what was answered lately; the policy says how far it may answer.
        window_events: the most events that are answered at once.
        wait: waits so many seconds, and returns whether to stop; `Event.wait` is one.
        observer: told of every batch.
        centre_is_away: whether those to whom events are escalated cannot be reached; then they are `unsure`.
        enriching: what is looked up for events before they are judged, if anything is.
        lane: of the sinks' partitions the one that this process writes to; without one, the records' ids choose.
    """
    flow = Dataflow("triage")
    records = op.input("records", flow, source)
    decoded = decode("decode", records, readings, observer)
    fresh = drop_repeats("drop_repeats", decoded.events, repeats, observer)
    known = enrich("enrich", fresh, enriching, wait) if enriching else fresh
    answered = answer(
        "answer",
        known,
        classifier=classifier,
        policy=policy,
        cache=cache,
        window_events=window_events,
        wait=wait,
        observer=observer,
    )
    decided = decide("decide", answered.judged, policy, observer, centre_is_away)
    verdicts = op.merge("decided_or_answered", decided, decoded.answers)
    for outlet in outlets:
        # In front: an outlet may be called as another with something behind it.
        taken = take_routes(f"routes-{outlet.name}", verdicts, outlet.routes, outlet.when)
        op.output(outlet.name, keyed(f"keyed-{outlet.name}", taken, lane), outlet.sink)
    letters = op.merge("letters", decoded.letters, answered.letters)
    op.output("dead_letters", keyed("keyed-dead_letters", letters, lane), dead_letters)
    return flow


def keyed(step_id: str, lists: Stream[list[R]], lane: str) -> KeyedStream[list[R]]:
    """Give each list a key, by which a sink of several partitions spreads them."""
    return op.key_on(step_id, lists, lambda records: lane or records[0].id)
