"""Every sink: a courier that carries payloads to a far end, and holds on disk what the far end does not take.

The flow only hands payloads over. A thread of the courier's delivers them through a `Carrier`, in order. When an epoch
ends, whatever the far end has not acknowledged is written to the backlog before Bytewax may commit; so at a commit
every payload is acknowledged or on our disk. The rules:

* A far end that is away costs the flow nothing: its payloads go to disk, and attempts follow at growing intervals.
* A far end that is slow costs the flow `patience_s` per epoch at the most.
* A full backlog makes the flow wait, and the spool behind it; nothing is dropped. Only a flow that is told to stop
  goes beyond the limit, by no more than what is in memory.
* A payload that the far end will never take is a dead letter, and those behind it go on.
* Delivery is at least once: a crash repeats what was sent since the last commit. Ids tell repeats apart.
"""

from collections import deque
from collections.abc import Callable, Sequence
from hashlib import sha256
from itertools import islice
from pathlib import Path
from random import Random
from threading import Condition, Event, Lock, Thread
from time import monotonic
from typing import Generic, Protocol, TypeVar

import structlog
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from msgspec import Struct

from dataflows.backoff import Backoff
from dataflows.connectors.backlog import Backlog
from dataflows.observer import Observer, Unobserved
from models.contracts import wire
from models.contracts.errors import InputError, UnavailableError
from models.contracts.event import DeadLetter
from models.contracts.scalars import EventId

R = TypeVar("R")

log = structlog.get_logger()


class Refusal(Struct, frozen=True):
    """The far end will never take the payload at `position` of the batch."""

    position: int
    reason: str


class Carrier(Protocol):
    """The way to one far end. Used by one thread; does no I/O until its first delivery."""

    def deliver(self, payloads: Sequence[bytes]) -> Sequence[Refusal]:
        """Return when the far end has every payload, or will never take it.

        Every wait in it is bounded. It may be called again after it raised. No payloads at all ask whether the far end
        still has what it seemed to take; where that cannot be told, they do nothing.

        Raises:
            UnavailableError: the far end is away; deliver the same batch later.
        """

    def close(self) -> None:
        """Let go of the far end; the carrier is not used again."""


class Limits(Struct, frozen=True, kw_only=True):
    """What a courier may hold and how long it may keep the flow waiting."""

    memory_bytes: int = 8 << 20  # handed over and not acknowledged; then the flow waits for its patience
    backlog_bytes: int = 1 << 30  # then the flow waits until there is room
    batch_bytes: int = 1 << 20  # of one delivery
    batch_payloads: int = 1000  # of one delivery
    gap_s: float = 0.01  # from one delivery to the next, while the flow does not wait for it
    patience_s: float = 1.0  # for a far end that works
    farewell_s: float = 0.3  # the same once the flow is told to stop
    backoff: Backoff = Backoff()


_LOOK_S = 2.0  # how often an idle far end is asked whether it is still there
_RETRY_FULL_S = 0.2  # how often a full backlog, or a full disk, is looked at again


class Courier:
    """Holds payloads for one far end and carries them there. `put` and `settle` may be called by several threads."""

    def __init__(
        self,
        name: str,
        carrier: Callable[[], Carrier],
        backlog: Path,
        *,
        limits: Limits,
        stop: Event,
        observer: Observer,
        refuse: Callable[[bytes, str], None],
    ) -> None:
        """Open the backlog and start to deliver what it holds.

        Raises:
            UnavailableError: the backlog cannot be opened.
        """
        self._name = name
        self._limits = limits
        self._stop = stop
        self._observer = observer
        self._refuse = refuse
        self._carrier = carrier
        self._backlog = Backlog(backlog, limits.backlog_bytes)
        self._changed = Condition()
        self._finish = Event()
        # Payloads have numbers. Those up to `_done` are settled; disk holds the oldest others, memory the newest.
        self._done = self._backlog.trimmed
        self._memory: deque[bytes] = deque()
        self._memory_bytes = 0
        self._last = self._backlog.last
        self._failing = False
        self._settling = False
        self._took_at = monotonic()
        self._death: BaseException | None = None
        self._thread = Thread(target=self._run, name=f"courier-{name}", daemon=True)
        self._thread.start()

    def put(self, payloads: Sequence[bytes]) -> None:
        """Take payloads; beyond the memory's limit this waits, or writes to disk.

        Raises:
            UnavailableError: the courier died, or the disk is full and the flow is told to stop.
        """
        with self._changed:
            idle = not self._memory
            self._memory.extend(payloads)
            self._memory_bytes += sum(map(len, payloads))
            self._last += len(payloads)
            # A courier that gathers looks by itself; to wake it for each list would cost two switches of threads.
            if idle or self._memory_bytes >= self._limits.batch_bytes:
                self._changed.notify_all()
            if self._memory_bytes > self._limits.memory_bytes:
                self._wait_for(lambda: self._memory_bytes <= self._limits.memory_bytes)
                if self._memory_bytes > self._limits.memory_bytes:
                    self._spill()

    def settle(self) -> None:
        """Return when every payload is acknowledged or on disk.

        Raises:
            UnavailableError: the courier died, or the disk is full and the flow is told to stop.
        """
        with self._changed:
            self._settling = True
            self._changed.notify_all()
            self._wait_for(lambda: not self._memory)
            self._settling = False
            self._spill()

    @property
    def away(self) -> bool:
        """Whether what is put now waits on disk, since the far end does not take what came before."""
        return self._failing or self._done < self._backlog.last

    def close(self) -> None:
        """Stop the thread, waiting for it only shortly: a delivery that hangs is on disk and made again."""
        self._finish.set()
        with self._changed:
            self._changed.notify_all()
        self._thread.join(self._limits.farewell_s)
        if not self._thread.is_alive():
            self._backlog.close()

    def _wait_for(self, settled: Callable[[], bool]) -> None:
        """Wait for a far end that works; one that is failing, or has older payloads on disk, is not waited for."""
        patience_s = self._limits.farewell_s if self._stop.is_set() else self._limits.patience_s
        self._changed.wait_for(
            lambda: settled() or self._failing or self._done < self._backlog.last or self._death is not None, patience_s
        )
        if self._death is not None:
            raise UnavailableError(
                f"sink {self._name}: its courier died: {self._death!r}; stopped the flow"
            ) from self._death

    def _spill(self) -> None:
        waiting = False
        while self._memory:
            if self._stop.is_set() or self._backlog.room_for(self._memory_bytes):
                try:
                    self._backlog.append(self._last, list(self._memory))
                except UnavailableError as error:
                    if self._stop.is_set():
                        raise
                    reason = str(error)
                else:
                    self._memory.clear()
                    self._memory_bytes = 0
                    break
            else:
                reason = f"backlog holds {self._backlog.size} bytes of at most {self._limits.backlog_bytes}"
            if not waiting:
                waiting = True
                log.warning("sink_full", sink=self._name, reason=reason)
            self._observer.waiting(self._name)
            self._changed.wait(_RETRY_FULL_S)
        if waiting:
            log.info("sink_full_no_more", sink=self._name, backlog_bytes=self._backlog.size)
        self._report()

    def _run(self) -> None:
        try:
            carrier = self._carrier()
            try:
                self._carry(carrier)
            finally:
                carrier.close()
        except BaseException as error:
            # The flow must learn of it: a sink without a courier would fill its disk and say nothing.
            with self._changed:
                self._death = error
                self._changed.notify_all()
            raise

    def _carry(self, carrier: Carrier) -> None:
        chance = Random()  # noqa: S311 - jitter, not a secret
        delays = self._limits.backoff.delays(chance)
        while not self._finish.is_set():
            try:
                taken = self._take()
                if taken is None:
                    return
                last, payloads = taken
                for refusal in carrier.deliver(payloads):
                    self._refuse(payloads[refusal.position], refusal.reason)
                self._acknowledge(last, len(payloads))
            except UnavailableError as error:
                delay_s = next(delays)
                self._fail(error, delay_s)
                self._finish.wait(delay_s)
            else:
                delays = self._limits.backoff.delays(chance)

    def _take(self) -> tuple[int, list[bytes]] | None:
        """Return the oldest payloads, and the last one's number; none after a while without any.

        None means to finish.
        """
        with self._changed:
            due = self._changed.wait_for(
                lambda: self._finish.is_set() or self._memory or self._done < self._backlog.last, _LOOK_S
            )
            # What comes alone goes at once; what comes in a stream gathers, so that no disk has to sync more often.
            self._changed.wait_for(
                lambda: self._finish.is_set() or self._settling or self._memory_bytes >= self._limits.batch_bytes,
                self._took_at + self._limits.gap_s - monotonic(),
            )
            self._took_at = monotonic()
            if self._finish.is_set():
                return None
            if not due:
                return self._done, []
            if self._done >= self._backlog.last:
                return self._first_in_memory()
        return self._backlog.after(self._done, self._limits.batch_bytes, self._limits.batch_payloads)

    def _first_in_memory(self) -> tuple[int, list[bytes]]:
        payloads: list[bytes] = []
        room = self._limits.batch_bytes
        for payload in islice(self._memory, self._limits.batch_payloads):
            payloads.append(payload)
            room -= len(payload)
            if room <= 0:
                break
        return self._last - len(self._memory) + len(payloads), payloads

    def _acknowledge(self, last: int, payloads: int) -> None:
        with self._changed:
            recovered, self._failing = self._failing, False
            # A spill may have moved them to disk while they were on their way.
            for _ in range(last - (self._last - len(self._memory))):
                self._memory_bytes -= len(self._memory.popleft())
            self._done = last
            self._changed.notify_all()
        if recovered:
            log.info("sink_recovered", sink=self._name, backlog_bytes=self._backlog.size)
        if payloads:
            self._observer.delivered(self._name, payloads)
        if self._backlog.size or recovered:
            self._backlog.trim(last)
            self._report()
            with self._changed:
                self._changed.notify_all()

    def _fail(self, error: UnavailableError, delay_s: float) -> None:
        with self._changed:
            self._failing = True
            self._changed.notify_all()
        log.warning("sink_failing", sink=self._name, reason=str(error), wait_s=round(delay_s, 1))
        self._report()

    def _report(self) -> None:
        self._observer.held(self._name, self._backlog.size, failing=self._failing)


LANES = 16
"""How many processes of a cluster may write to one sink. It belongs to the recovery store: it stays what it is."""


class CourierSink(FixedPartitionedSink[list[R], None], Generic[R]):
    """One far end as a sink: one partition, whose state is the backlog on disk.

    In a cluster each process has a courier of its own, and partitions of its own that all lead to it, so that nothing
    crosses from one process to another. There are `LANES` partitions whatever the number of processes is.
    """

    def __init__(
        self,
        name: str,
        carrier: Callable[[], Carrier],
        encode: Callable[[list[R]], Sequence[bytes]],
        backlog: Path,
        *,
        stop: Event,
        limits: Limits | None = None,
        observer: Observer | None = None,
        dead_letters: "CourierSink[DeadLetter] | None" = None,
        process: int | None = None,
        processes: int = 1,
    ) -> None:
        """Describe the sink; nothing is opened yet.

        Args:
            name: the outlet's, for logs and metrics.
            carrier: makes the way to the far end, in the courier's thread.
            encode: records to payloads; a payload is what is acknowledged, repeated or refused as one.
            backlog: the file for what the far end does not take. One sink each; keep it over restarts.
            stop: set when the flow is told to stop.
            limits: what it may hold, and how long it may keep the flow waiting.
            observer: told of deliveries and of the backlog.
            dead_letters: takes the payloads that the far end refuses; a sink without one tries them for ever.
            process: our number in a cluster; None outside of one.
            processes: how many there are.
        """
        self._name = name
        self._carrier = carrier
        self._encode = encode
        self._path = backlog
        self._stop = stop
        self._limits = limits if limits is not None else Limits()
        self._observer = observer if observer is not None else Unobserved()
        self._dead_letters = dead_letters
        self._lanes = None if process is None else range(process, LANES, processes)
        self._courier: Courier | None = None
        self._starting = Lock()

    def list_parts(self) -> list[str]:
        return ["courier"] if self._lanes is None else [f"lane-{lane:02}" for lane in self._lanes]

    def part_fn(self, item_key: str) -> int:
        return 0 if self._lanes is None else int(item_key)

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> "_Partition[R]":  # noqa: ARG002 - the state is on disk
        return _Partition(self, self._encode)

    def courier(self) -> Courier:
        """Return the running courier, started on first use.

        Raises:
            UnavailableError: the backlog cannot be opened.
        """
        with self._starting:
            if self._courier is None:
                self._courier = Courier(
                    self._name,
                    self._carrier,
                    self._path,
                    limits=self._limits,
                    stop=self._stop,
                    observer=self._observer,
                    refuse=self._bury,
                )
            return self._courier

    def away(self) -> bool:
        """Return whether the far end takes nothing at present."""
        courier = self._courier
        return courier is not None and courier.away

    def deposit(self, records: list[R]) -> None:
        """Take records from outside the flow; on return they are delivered or on disk.

        Raises:
            UnavailableError: neither can be had now.
        """
        courier = self.courier()
        courier.put(self._encode(records))
        courier.settle()

    def close(self) -> None:
        """Stop the courier; a flow that runs again starts another."""
        with self._starting:
            courier, self._courier = self._courier, None
        if courier is not None:
            courier.close()

    def _bury(self, payload: bytes, reason: str) -> None:
        log.warning("payload_refused", sink=self._name, reason=reason, bytes=len(payload))
        if self._dead_letters is None:
            raise UnavailableError(
                f"sink {self._name}: {reason}; no dead letters are kept for it, so it is tried again"
            )
        letter = refused_letter(self._name, payload, reason)
        self._dead_letters.deposit([letter])
        self._observer.buried([letter])


def refused_letter(sink: str, payload: bytes, reason: str) -> DeadLetter:
    """Return the dead letter of a payload that a far end refused: the verdict's own id, where it is one."""
    detail = f"{sink}: {reason}"
    try:
        verdict = wire.decode_verdict(payload)
    except InputError:
        return DeadLetter(
            id=EventId(f"{sink}.{sha256(payload).hexdigest()[:32]}"),
            source=sink,
            received_at_ms=0,
            reason="refused-by-sink",
            detail=detail,
            raw=payload,
        )
    return DeadLetter(
        id=verdict.id,
        source=verdict.source,
        received_at_ms=verdict.received_at_ms,
        reason="refused-by-sink",
        detail=detail,
        raw=payload,
        topic=verdict.topic,
        gateway=verdict.gateway,
    )


class _Partition(StatefulSinkPartition[list[R], None], Generic[R]):
    def __init__(self, sink: CourierSink[R], encode: Callable[[list[R]], Sequence[bytes]]) -> None:
        self._sink = sink
        self._courier = sink.courier()
        self._encode = encode

    def write_batch(self, values: list[list[R]]) -> None:
        for records in values:
            self._courier.put(self._encode(records))

    def snapshot(self) -> None:
        self._courier.settle()

    def close(self) -> None:
        self._sink.close()
