"""One thread between all sources and the spool: whatever waits is one commit.

What comes alone is committed at once. Commits begin a few milliseconds apart, or later where the disk is slower: each
costs the processor as much as it takes to read an event, whatever is in it.
"""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from enum import Enum

import structlog
from msgspec import Struct

from dataflows.connectors.spool import NOTHING, Arrival, Notes, Receipt, Spool, SpoolFullError
from models.contracts.errors import UnavailableError

SOURCE_MAX_BYTES = 4 << 20  # what one source may have waiting: some 50 ms of a fast disk, a second of a stalled one
_COMMIT_MAX_BYTES = 2 << 20  # what the spool's log grows by at once
_ROW_MAX_BYTES = 64 << 10
_ROW_MAX_RECORDS = 512
_ROOM_BYTES = 2 * _ROW_MAX_BYTES  # more than any source hands over at once
_SAME_TIME_MS = 5  # arrivals this close share a row, and the time of the first
_RECORD_BYTES = 8  # what a record costs besides itself
_RETRY_S = 0.02
_APART_S = 0.005
_NOTES_WITHIN_S = 0.25  # counts that come without an arrival

log = structlog.get_logger()


class Refusal(Enum):
    """What becomes of records that the spool does not take."""

    LOSE = "lose"  # nobody can be made to wait: counted as lost
    HOLD = "hold"  # held, and the sender made to wait; lost only where we must end first
    REPEAT = "repeat"  # held; the source still has them and hands them over again after a restart


class Delivery(Struct, frozen=True):
    """What a source hands over, and whom to tell when it is on disk."""

    arrival: Arrival
    refusal: Refusal
    stored: Callable[[], None] | None = None  # called in the committing thread: return at once, raise nothing
    mark: bytes | None = None
    receipts: Sequence[Receipt] = ()

    @property
    def bytes(self) -> int:
        arrival = self.arrival
        return sum(map(len, arrival.records)) + sum(map(len, arrival.topics)) + _RECORD_BYTES * len(arrival.records)


class GroupCommit:
    """Takes deliveries from any thread; commits them in order."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._changed = threading.Condition()
        self._queue: deque[Delivery] = deque()
        self._losable: deque[Delivery] = deque()  # apart, so that they are lost, and not held, behind what is held
        self._blocked = False  # the first of the queue did not fit
        self._waiting_bytes: Counter[str] = Counter()  # by source, until on disk or lost
        self._losses: Counter[tuple[str, str]] = Counter()  # not on disk yet
        self._incidents: Counter[tuple[str, str]] = Counter()
        self._noted_at = 0.0
        self._refused_at = 0.0
        self._stop_by: float | None = None
        self._closing = threading.Event()
        self._refusing = ""
        self._thread = threading.Thread(target=self._run, name="group-commit", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def offer(self, delivery: Delivery) -> bool:
        """Queue a delivery; True where its source should now stop reading until it has room."""
        source = delivery.arrival.source
        with self._changed:
            (self._losable if delivery.refusal is Refusal.LOSE else self._queue).append(delivery)
            self._waiting_bytes[source] += delivery.bytes
            self._changed.notify_all()
            return self._waiting_bytes[source] >= SOURCE_MAX_BYTES

    def wait_for_room(self, source: str, timeout_s: float) -> bool:
        """Wait until a source may read on; False where it may not yet."""
        with self._changed:
            return self._changed.wait_for(lambda: self._waiting_bytes[source] < SOURCE_MAX_BYTES, timeout_s)

    def has_room(self, source: str) -> bool:
        """Whether a source may read on, well below where it had to stop."""
        with self._changed:
            return self._waiting_bytes[source] < SOURCE_MAX_BYTES // 2

    def lost(self, source: str, reason: str, events: int = 1) -> None:
        """Count events that are lost."""
        self._note(self._losses, source, reason, events)

    def happened(self, source: str, what: str, times: int = 1) -> None:
        """Count what an operator should know and what loses no event that we know of."""
        self._note(self._incidents, source, what, times)

    def close(self, within_s: float = 1.0) -> None:
        """Commit what waits and end; what does not fit by then is counted as lost where nobody repeats it."""
        with self._changed:
            self._stop_by = time.monotonic() + within_s
            self._changed.notify_all()
        self._closing.set()
        self._thread.join()
        self._spool.close()

    def _note(self, tally: Counter[tuple[str, str]], source: str, reason: str, n: int) -> None:
        with self._changed:
            if not self._losses and not self._incidents:
                self._noted_at = time.monotonic()
                self._changed.notify_all()
            tally[source, reason] += n

    def _run(self) -> None:
        while True:
            work = self._take()
            if work is None:
                return
            deliveries, losses, incidents = work
            if not deliveries and not losses and not incidents:
                self._admit()
                continue
            began = time.monotonic()
            stored, reason = self._commit(deliveries, losses, incidents)
            self._settle(deliveries[:stored], deliveries[stored:], reason)
            if (self._blocked or 0 < stored < len(deliveries)) and not self._spool.refusing:
                self._refuse(*self._counts())  # what fitted has been recorded as the end of a refusal
            if self._late() and reason and not deliveries:
                log.error("counts_not_written", losses=losses.total(), incidents=incidents.total())
                return
            if (left_s := began + _APART_S - time.monotonic()) > 0:
                self._closing.wait(left_s)

    def _take(self) -> tuple[list[Delivery], Counter[tuple[str, str]], Counter[tuple[str, str]]] | None:
        """Wait for work; nothing to write means that there is room again, None the end."""
        with self._changed:
            while self._stop_by is None:
                self._blocked = self._blocked and not self._spool.takes(self._queue[0].bytes)
                notes_in_s = self._notes_in_s()
                if self._losable or (self._queue and not self._blocked) or (notes_in_s is not None and notes_in_s <= 0):
                    break
                if self._has_room_again():
                    break
                self._changed.wait(self._wait_s(notes_in_s))
            else:
                if self._blocked:
                    self._changed.wait(_RETRY_S)
                    self._blocked = False
            taken: list[Delivery] = []
            size = 0
            queue_waits = bool(self._queue) and not self._blocked
            # Half, so that a flood nobody can be made to stop leaves room for those who wait.
            losable_max_bytes = _COMMIT_MAX_BYTES // 2 if queue_waits else _COMMIT_MAX_BYTES
            while self._losable and size < losable_max_bytes:
                taken.append(self._losable.popleft())
                size += taken[-1].bytes
            while queue_waits and self._queue and size < _COMMIT_MAX_BYTES:
                taken.append(self._queue.popleft())
                size += taken[-1].bytes
            losses, incidents = self._counts()
            if self._stop_by is not None and not taken and not losses and not incidents:
                return None
            return taken, losses, incidents

    def _counts(self) -> tuple[Counter[tuple[str, str]], Counter[tuple[str, str]]]:
        """Take the losses and incidents that are not on disk yet."""
        with self._changed:
            counts = self._losses, self._incidents
            self._losses, self._incidents = Counter(), Counter()
        return counts

    def _wait_s(self, notes_in_s: float | None) -> float | None:
        if self._blocked:
            return _RETRY_S
        if self._spool.refusing:
            return _NOTES_WITHIN_S if notes_in_s is None else min(notes_in_s, _NOTES_WITHIN_S)
        return notes_in_s

    def _has_room_again(self) -> bool:
        """Whether a refusal, perhaps of an earlier process, is over though nothing waits whose commit would end it."""
        if not self._spool.refusing or self._queue or time.monotonic() < self._refused_at + _NOTES_WITHIN_S:
            return False
        return self._spool.takes(_ROOM_BYTES)

    def _admit(self) -> None:
        try:
            self._spool.admit()
        except UnavailableError:
            self._refused_at = time.monotonic()  # no room after all; looked at again soon
        else:
            self._say("")

    def _notes_in_s(self) -> float | None:
        if not self._losses and not self._incidents:
            return None
        return self._noted_at + _NOTES_WITHIN_S - time.monotonic()

    def _commit(
        self, deliveries: list[Delivery], losses: Counter[tuple[str, str]], incidents: Counter[tuple[str, str]]
    ) -> tuple[int, str]:
        """Put as many as fit on disk, from the first on; return how many, and why not more."""
        fitting, reason = len(deliveries), ""
        while fitting or not deliveries:
            part = deliveries[:fitting]
            try:
                self._spool.append(self._rows(part), _notes(part, losses, incidents))
            except SpoolFullError as error:
                reason = "spool-full"
                self._say(reason, str(error))
                fitting //= 2
            except UnavailableError as error:
                reason = "disk"
                self._say(reason, str(error))
                break
            else:
                # Counts alone fit where no event does.
                if not reason and any(delivery.arrival.records for delivery in part):
                    self._say("")
                return fitting, reason
        self._refuse(losses, incidents)
        return 0, reason

    def _refuse(self, losses: Counter[tuple[str, str]], incidents: Counter[tuple[str, str]]) -> None:
        """Write what was lost, now and then: a full spool need not wear out the disk with its counts."""
        now = time.monotonic()
        if not self._spool.refusing or now >= self._refused_at + _NOTES_WITHIN_S:
            self._refused_at = now
            try:
                self._spool.refuse(_notes((), losses, incidents))
            except UnavailableError:
                pass  # said already; they are kept
            else:
                return
        with self._changed:
            self._losses.update(losses)
            self._incidents.update(incidents)
            self._noted_at = now

    def _late(self) -> bool:
        return self._stop_by is not None and time.monotonic() >= self._stop_by

    def _settle(self, stored: Sequence[Delivery], refused: Sequence[Delivery], reason: str) -> None:
        for delivery in stored:
            if delivery.stored is not None:
                delivery.stored()
        with self._changed:
            lost = [delivery for delivery in refused if delivery.refusal is Refusal.LOSE]
            held = [delivery for delivery in refused if delivery.refusal is not Refusal.LOSE]
            left: list[Delivery] = []
            if held and self._late():
                # With all behind it: the mark of a later delivery would lead past what is dropped here.
                lost += [delivery for delivery in (*held, *self._queue) if delivery.refusal is Refusal.HOLD]
                left = [delivery for delivery in (*held, *self._queue) if delivery.refusal is Refusal.REPEAT]
                held.clear()
                self._queue.clear()
            for delivery in lost:
                self._losses[delivery.arrival.source, reason] += len(delivery.arrival.records)
            for delivery in (*stored, *lost, *left):
                self._waiting_bytes[delivery.arrival.source] -= delivery.bytes
            self._queue.extendleft(reversed(held))
            self._blocked = self._blocked or bool(held)
            self._changed.notify_all()

    def _say(self, refusing: str, reason: str = "") -> None:
        """One line where it begins to refuse, and one where it takes again."""
        if refusing != self._refusing:
            if refusing:
                log.warning("spool_refuses", why=refusing, reason=reason)
            else:
                log.info("spool_takes_again")
        self._refusing = refusing

    def _rows(self, deliveries: Iterable[Delivery]) -> list[Arrival]:
        """Put what came at the same time from the same source into one row; a source's order is kept."""
        rows: list[Arrival] = []
        open_rows: dict[str, tuple[Arrival, int]] = {}
        for delivery in deliveries:
            arrival, size = delivery.arrival, delivery.bytes
            if not arrival.records:
                continue
            row, row_bytes = open_rows.get(arrival.source, (None, 0))
            if (
                row is not None
                and not arrival.positions
                and not row.positions
                and 0 <= arrival.received_at_ms - row.received_at_ms <= _SAME_TIME_MS
                and len(row.records) + len(arrival.records) <= _ROW_MAX_RECORDS
                and row_bytes + size <= _ROW_MAX_BYTES
            ):
                row.records.extend(arrival.records)
                row.topics.extend(arrival.topics)
                open_rows[arrival.source] = (row, row_bytes + size)
                continue
            # A copy, since rows grow: a delivery that is refused must come again as it was.
            row = Arrival(
                arrival.source,
                arrival.received_at_ms,
                list(arrival.records),
                arrival.origin,
                arrival.positions,
                list(arrival.topics),
            )
            rows.append(row)
            open_rows[arrival.source] = (row, size)
        return rows


def _notes(
    deliveries: Iterable[Delivery], losses: Counter[tuple[str, str]], incidents: Counter[tuple[str, str]]
) -> Notes:
    marks: dict[str, bytes] = {}
    receipts: dict[str, list[Receipt]] = {}
    for delivery in deliveries:
        if delivery.mark is not None:
            marks[delivery.arrival.source] = delivery.mark
        if delivery.receipts:
            receipts.setdefault(delivery.arrival.source, []).extend(delivery.receipts)
    if not marks and not receipts and not losses and not incidents:
        return NOTHING
    return Notes(marks=marks, receipts=receipts, losses=losses, incidents=incidents)
