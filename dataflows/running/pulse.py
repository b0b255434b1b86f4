"""Notices that the flow takes turns: a watchdog must know a flow that is stuck from one that has nothing to do."""

from datetime import datetime
from threading import Event
from time import monotonic
from typing import TypeVar

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition

X = TypeVar("X")
S = TypeVar("S")

_PROGRESS_WITHIN_S = 60.0  # a batch of a slow model takes tens of seconds; a stuck flow takes for ever


class Pulse:
    """When the flow last asked its source for more."""

    def __init__(self) -> None:
        self._last = monotonic()
        self.begun = Event()

    def beat(self) -> None:
        self._last = monotonic()
        self.begun.set()

    def idle_s(self) -> float:
        """Return the seconds since the last beat or, before the first, since we were made."""
        return monotonic() - self._last


def unhealthy(idle_s: float) -> list[str]:
    """Say why a restart would help a flow that has been idle for so long; nothing where it would not."""
    return [f"the flow has made no progress for {idle_s:.0f} s"] if idle_s > _PROGRESS_WITHIN_S else []


class PulsingSource(FixedPartitionedSource[X, S]):
    """Any source, with a beat of the pulse at each turn."""

    def __init__(self, source: FixedPartitionedSource[X, S], pulse: Pulse) -> None:
        self._source = source
        self._pulse = pulse

    def list_parts(self) -> list[str]:
        return self._source.list_parts()

    def build_part(self, step_id: str, for_part: str, resume_state: S | None) -> "_PulsingPartition[X, S]":
        return _PulsingPartition(self._source.build_part(step_id, for_part, resume_state), self._pulse)


class _PulsingPartition(StatefulSourcePartition[X, S]):
    def __init__(self, partition: StatefulSourcePartition[X, S], pulse: Pulse) -> None:
        self._partition = partition
        self._pulse = pulse

    def next_batch(self) -> list[X]:
        self._pulse.beat()
        return list(self._partition.next_batch())

    def next_awake(self) -> datetime | None:
        return self._partition.next_awake()

    def snapshot(self) -> S:
        return self._partition.snapshot()

    def close(self) -> None:
        self._partition.close()
