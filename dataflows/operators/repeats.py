"""Drops events whose id has just been seen: a bounded, expiring window in memory.

It is not recovered. What it forgets in a restart is answered again under the same id, and whoever receives verdicts
drops repeats by id; keyed state would cost an exchange before inference and half of the throughput.
"""

from collections import Counter, deque
from collections.abc import Callable
from threading import Lock
from time import monotonic

from bytewax import operators as op
from bytewax.dataflow import Stream, operator
from msgspec import Struct

from dataflows.observer import Observer
from models.contracts.event import Event
from models.contracts.scalars import EventId


class Repeats(Struct, frozen=True, kw_only=True):
    """An id is remembered while it is among the last `window_events` and younger than `window_s`."""

    window_events: int = 65_536
    window_s: float = 600.0


@operator
def drop_repeats(step_id: str, up: Stream[list[Event]], repeats: Repeats, observer: Observer) -> Stream[list[Event]]:
    """Let the first event of each id pass, in order. All workers of a process share the window."""
    window = Window(repeats, monotonic)

    def step(events: list[Event]) -> list[Event] | None:
        fresh = window.fresh(events)
        if len(fresh) < len(events):
            repeated = Counter(event.source for event in events)
            repeated.subtract(event.source for event in fresh)
            for source, times in (+repeated).items():
                observer.repeated(source, times)
        return fresh or None

    return op.filter_map("fresh", up, step)


class Window:
    """The ids seen lately, in the batches in which they came: forgetting a batch is one call."""

    def __init__(self, repeats: Repeats, clock: Callable[[], float]) -> None:
        self._repeats = repeats
        self._clock = clock
        self._lock = Lock()
        self._seen: set[EventId] = set()
        self._batches: deque[tuple[float, list[EventId]]] = deque()

    def __len__(self) -> int:
        return len(self._seen)

    def fresh(self, events: list[Event]) -> list[Event]:
        """Return the events not seen before, in order, and remember them."""
        with self._lock:
            now = self._clock()
            self._forget(now)
            seen = self._seen
            ids = [event.id for event in events]
            new = set(ids)
            if len(new) < len(ids) or not new.isdisjoint(seen):
                events = _first_of_each(events, seen)
                ids = [event.id for event in events]
            if ids:  # nothing but repeats leaves nothing to forget
                seen.update(ids)
                self._batches.append((now, ids))
            return events

    def _forget(self, now: float) -> None:
        while self._batches:
            seen_at, ids = self._batches[0]
            # Whole batches go, so up to one batch more than the window is remembered, and never less.
            if now - seen_at <= self._repeats.window_s and len(self._seen) - len(ids) < self._repeats.window_events:
                return
            self._seen.difference_update(ids)
            self._batches.popleft()


def _first_of_each(events: list[Event], seen: set[EventId]) -> list[Event]:
    fresh: dict[EventId, Event] = {}
    for event in events:
        if event.id not in seen:
            fresh.setdefault(event.id, event)
    return list(fresh.values())
