"""The delivery flow: every verdict in is delivered to each place that asked for it, or a dead letter.

Like triage it names no transport; an item is a batch, and every sink is a `FixedPartitionedSink`.
"""

from collections.abc import Sequence
from typing import TypeVar

from bytewax import operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import Source

from dataflows.observer import Observer
from dataflows.operators.decode import Reading, Records, decode
from dataflows.operators.routes import take_routes
from dataflows.triage import DeadLetterSink, Outlet, keyed

B = TypeVar("B", bound=Records)

SOURCE = "verdicts"
"""What the source of the flow is called."""


def deliver(
    source: Source[B],
    outlets: Sequence[Outlet],
    dead_letters: DeadLetterSink,
    *,
    observer: Observer,
    lane: str = "",
) -> Dataflow:
    """Lay the flow out; nothing runs yet.

    Args:
        source: hands over encoded verdicts in batches; one item is one batch.
        outlets: where verdicts go, each with the routes it takes.
        dead_letters: where records go that are no verdicts.
        observer: told of every batch.
        lane: of the sinks' partitions the one that this process writes to; without one, the records' ids choose.
    """
    flow = Dataflow("deliver")
    records = op.input("records", flow, source)
    decoded = decode("decode", records, {SOURCE: Reading(kind="verdicts")}, observer)
    for outlet in outlets:
        taken = take_routes(f"routes-{outlet.name}", decoded.answers, outlet.routes)
        op.output(outlet.name, keyed(f"keyed-{outlet.name}", taken, lane), outlet.sink)
    op.output("dead_letters", keyed("keyed-dead_letters", decoded.letters, lane), dead_letters)
    return flow
