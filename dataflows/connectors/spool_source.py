"""The spool as a Bytewax source: batches in order, and a trim of what the recovery store has committed."""

from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from time import monotonic

import structlog
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition

from dataflows.connectors.batch import Batch
from dataflows.connectors.spool import SpoolReader, StoredArrival
from models.contracts.errors import UnavailableError

PARTITION = "spool"  # never another: a recovery store refuses a flow without a partition that it knows
_IDLE_S = 0.005  # adds to the latency of an event that comes alone
_QUIET_S, _QUIET_AFTER_S = 0.02, 1.0  # likewise, after a silence: a gateway that does nothing costs half as much
_AWAY_S = 0.05  # and no longer: a source that sleeps holds up every epoch
# Bytewax compares the time to wake with the wall clock, also where a source leaves it open; a clock that steps back an
# hour would keep the flow asleep for that hour. So we are always due, and wait by ourselves.
_LONG_DUE = datetime(1970, 1, 1, tzinfo=UTC)
_READ_AHEAD_ROWS = 64
_FEW_EVENTS, _LONG_S = 32, 1.0

Position = tuple[str, int, int]  # the spool's id, the number of the next arrival, and the index of the record in it

log = structlog.get_logger()


class SpoolSource(FixedPartitionedSource[Batch, Position]):
    """Hands over what waits in the spool, up to `batch_events` records and about `batch_s` of work at a time.

    Several small arrivals come as several items in one list, which bytewax keeps together up to the first operator
    that works on lists (`flat_map_batch`); a large one comes in stretches.
    """

    def __init__(
        self, path: Path, stop: Event, *, batch_events: int = 64, batch_s: float = 0.02, drain: bool = False
    ) -> None:
        """Read `path` until `stop` is set or, with `drain`, until nothing waits."""
        self._path = path
        self._stop = stop
        self._batch_events = batch_events
        self._batch_s = batch_s
        self._drain = drain

    def list_parts(self) -> list[str]:
        return [PARTITION]

    def build_part(self, step_id: str, for_part: str, resume_state: Position | None) -> "SpoolPartition":  # noqa: ARG002
        return SpoolPartition(
            SpoolReader(self._path),
            resume_state,
            self._stop,
            batch_events=self._batch_events,
            batch_s=self._batch_s,
            drain=self._drain,
        )


class SpoolPartition(StatefulSourcePartition[Batch, Position]):
    """One reading of the spool, from a position on."""

    def __init__(
        self,
        reader: SpoolReader,
        resume: Position | None,
        stop: Event,
        *,
        batch_events: int,
        drain: bool,
        batch_s: float = 0.02,
    ) -> None:
        self._reader = reader
        self._stop = stop
        self._most_events = batch_events
        self._batch_s = batch_s
        self._window_events = 1
        self._handed_events = 0
        self._handed_at: float | None = None
        self._drain = drain
        self._seq, self._index = _start(reader, resume)
        self._ahead: deque[StoredArrival] = deque()
        # What we resume from is committed already.
        self._committable: int | None = self._seq
        self._trimmed = 0
        self._untrimmed = False
        self._failing = False
        self._read_at = 0.0

    def next_batch(self) -> list[Batch]:
        # The first call after a snapshot comes when its epoch is on disk, on every worker: what it had passed can go.
        if self._committable is not None:
            self._trim(self._committable)
            self._committable = None
        if self._stop.is_set():
            raise StopIteration
        if self._handed_at is not None:
            # One worker: it comes back when what it was handed has gone all the way.
            took_s = monotonic() - self._handed_at
            full = self._handed_events >= self._window_events
            self._window_events = next_window(self._window_events, took_s, self._batch_s, self._most_events, full=full)
            self._handed_at = None
        batches = self._read()
        if not batches and self._drain and not self._failing:
            raise StopIteration
        if batches:
            self._handed_events = sum(len(batch.records) for batch in batches)
            self._read_at = self._handed_at = monotonic()
        else:
            self._stop.wait(self._pause_s())
        return batches

    def next_awake(self) -> datetime:
        return _LONG_DUE

    def snapshot(self) -> Position:
        self._committable = self._seq
        return (self._reader.id, self._seq, self._index)

    def close(self) -> None:
        self._reader.close()

    def _pause_s(self) -> float:
        if self._failing:
            return _AWAY_S
        return _IDLE_S if monotonic() < self._read_at + _QUIET_AFTER_S else _QUIET_S

    def _read(self) -> list[Batch]:
        batches: list[Batch] = []
        wanted = self._window_events
        while wanted > 0 and (self._ahead or self._fill()):
            stored = self._ahead[0]
            if stored.seq != self._seq:  # what we stood in was trimmed: a gap that has been logged
                self._seq, self._index = stored.seq, 0
            batch = _stretch(self._reader.id, stored, self._index, self._index + wanted)
            wanted -= len(batch.records)
            self._index += len(batch.records)
            if self._index >= len(stored.arrival.records):
                self._ahead.popleft()
                self._seq, self._index = stored.seq + 1, 0
            if batch.records:
                batches.append(batch)
        return batches

    def _fill(self) -> bool:
        try:
            self._ahead.extend(self._reader.read(self._seq, _READ_AHEAD_ROWS))
        except UnavailableError as error:
            if not self._failing:
                log.warning("spool_unreadable", reason=str(error))
            self._failing = True
            return False
        self._failing = False
        return bool(self._ahead)

    def _trim(self, before_seq: int) -> None:
        if before_seq <= self._trimmed:
            return
        try:
            self._reader.trim(before_seq)
        except UnavailableError as error:
            if not self._untrimmed:
                log.warning("spool_not_trimmed", reason=str(error))
            self._untrimmed = True  # the next epoch trims this too
            return
        self._untrimmed = False
        self._trimmed = before_seq


def next_window(events: int, took_s: float, wanted_s: float, most: int, *, full: bool) -> int:
    """Return how many events to hand over at once from now on, after `events` or, if not `full`, fewer took so long.

    It begins with one and doubles: to a few in any case, for a model shares work among them, and to `most` while that
    takes less than it may, for what waits behind a batch waits for all of it. A model so slow that a watchdog would
    end its batch again and again before it is done gets fewer.
    """
    if took_s > _LONG_S:
        return max(1, events // 2)
    if events > _FEW_EVENTS and took_s > 2 * wanted_s:
        return max(_FEW_EVENTS, events // 2)
    return min(2 * events, most) if full and (events < _FEW_EVENTS or took_s < wanted_s) else events


def _start(reader: SpoolReader, resume: Position | None) -> tuple[int, int]:
    """Return where to begin; say so loudly where the recovery store and the spool do not belong together."""
    first, end = reader.span()
    if resume is None:
        return first, 0
    spool_id, seq, index = resume
    if spool_id != reader.id:
        log.error("spool_replaced", expected=spool_id, found=reader.id, action=f"starting at its oldest event, {first}")
        return first, 0
    if seq > end:
        log.error("spool_older_than_recovery", position=seq, next=end, action=f"starting at its oldest event, {first}")
        return first, 0
    if seq < first:
        log.error("spool_trimmed_past_recovery", position=seq, oldest=first, action="starting there: a gap")
        return first, 0
    return seq, index


def _stretch(spool_id: str, stored: StoredArrival, start: int, stop: int) -> Batch:
    arrival = stored.arrival
    records = arrival.records if start == 0 and stop >= len(arrival.records) else arrival.records[start:stop]
    if arrival.positions:
        ids = [f"{arrival.origin}.{position}" for position in arrival.positions[start:stop]]
    else:
        prefix = f"{spool_id}.{stored.seq}."
        ids = [f"{prefix}{index}" for index in range(start, start + len(records))]
    return Batch(arrival.source, arrival.received_at_ms, records, ids, arrival.topics[start:stop])
