"""The delivery flow: every verdict in is delivered to each place that asked for it, or a dead letter; and incidents.

Like triage it names no transport; an item is a batch, and every sink is a `FixedPartitionedSink`.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar

from bytewax import operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import Source
from bytewax.outputs import FixedPartitionedSink
from msgspec import Struct

from dataflows.correlation import IncidentRule
from dataflows.observer import Observer
from dataflows.operators.answers import read_answers
from dataflows.operators.decode import Reading, Records, decode
from dataflows.operators.incidents import Misses, incidents
from dataflows.operators.routes import take_routes
from dataflows.triage import DeadLetterSink, Outlet, keyed
from models.contracts.answer import Answer
from models.contracts.incident import Incident

B = TypeVar("B", bound=Records)

VERDICTS, ANSWERS = "verdicts", "answers"
"""What the sources of the flow are called: of all verdicts, and of what people answered."""


IncidentSink = FixedPartitionedSink[list[Incident], Any]
AnswerSink = FixedPartitionedSink[list[Answer], Any]


class Correlating(Struct, frozen=True, kw_only=True):
    """What several verdicts say together: by which rules it is found, and where it goes, by the outlets' names."""

    rules: tuple[IncidentRule, ...]
    sinks: dict[str, IncidentSink]
    misses: Misses
    clock: Callable[[], datetime]


def deliver(
    source: Source[B],
    outlets: Sequence[Outlet],
    answers: AnswerSink,
    dead_letters: DeadLetterSink,
    *,
    observer: Observer,
    correlating: Correlating | None = None,
    lane: str = "",
) -> Dataflow:
    """Lay the flow out; nothing runs yet.

    Args:
        source: hands over encoded verdicts, and answers, in batches; one item is one batch.
        outlets: where verdicts go, each with the routes it takes.
        answers: where answers of people go.
        dead_letters: where records go that are neither.
        observer: told of every batch.
        correlating: which incidents are looked for, if any are.
        lane: of the sinks' partitions the one that this process writes to; without one, the records' ids choose.
    """
    flow = Dataflow("deliver")
    records = op.input("records", flow, source)
    parted = op.branch("part", records, lambda batch: batch.source == ANSWERS)
    said = read_answers("read_answers", parted.trues, observer)
    decoded = decode("decode", parted.falses, {VERDICTS: Reading(kind="verdicts")}, observer)
    for outlet in outlets:
        taken = take_routes(f"routes-{outlet.name}", decoded.answers, outlet.routes, outlet.when)
        op.output(outlet.name, keyed(f"keyed-{outlet.name}", taken, lane), outlet.sink)
    if correlating is not None:
        found = incidents("incidents", decoded.answers, correlating.rules, correlating.misses, correlating.clock)
        for name, sink in correlating.sinks.items():
            op.output(name, keyed(f"keyed-{name}", found, lane), sink)
    op.output("people", keyed("keyed-people", said.answers, lane), answers)
    letters = op.merge("letters", decoded.letters, said.letters)
    op.output("dead_letters", keyed("keyed-dead_letters", letters, lane), dead_letters)
    return flow
