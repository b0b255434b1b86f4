"""What the threads of a bridge tell whoever watches it: that they take turns, what they carry, what they wait for."""

import threading
from collections.abc import Callable, Iterable
from time import monotonic

from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics

_TURN_WITHIN_S = 60.0  # every wait for the broker or for Kafka ends long before


class BridgeWatch:
    """Counts, and tells by each thread whether it works."""

    def __init__(self, threads: Iterable[str], clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._turned_at = dict.fromkeys(threads, clock())
        self._waits_for = dict.fromkeys(self._turned_at, "it has not begun")
        disable_created_metrics()  # type: ignore[no-untyped-call]  # no `_created` series beside each figure
        self.registry = CollectorRegistry()
        self._carried = Counter(
            "headwater_bridge_carried", "Messages carried, by thread.", ["thread"], registry=self.registry
        )
        self._dead_letters = Counter(
            "headwater_dead_letters", "Lines that are no verdicts of their gateway, by reason.", ["reason"],
            registry=self.registry,
        )  # fmt: skip
        self._up = Gauge(
            "headwater_bridge_up", "1 where a thread has what it needs: Kafka, and the broker.", ["thread"],
            registry=self.registry,
        )  # fmt: skip
        for name in self._turned_at:
            self._carried.labels(name)
            self._up.labels(name).set(0)

    def turned(self, thread: str, carried: int = 0) -> None:
        """Note that a thread has what it needs, and has just carried so many messages."""
        with self._lock:
            self._turned_at[thread] = self._clock()
            self._waits_for[thread] = ""
        self._up.labels(thread).set(1)
        if carried:
            self._carried.labels(thread).inc(carried)

    def waits(self, thread: str, reason: str) -> None:
        """Note what a thread waits for."""
        with self._lock:
            self._turned_at[thread] = self._clock()
            self._waits_for[thread] = reason
        self._up.labels(thread).set(0)

    def buried(self, reason: str, count: int) -> None:
        """Count dead letters."""
        self._dead_letters.labels(reason).inc(count)

    def unhealthy(self) -> list[str]:
        """Say why a restart would help; nothing where it would not."""
        with self._lock:
            idle = {name: self._clock() - at for name, at in self._turned_at.items()}
        return [f"{name} took no turn for {idle_s:.0f} s" for name, idle_s in idle.items() if idle_s > _TURN_WITHIN_S]

    def unready(self) -> list[str]:
        """Say why gateways are not served."""
        with self._lock:
            waits = dict(self._waits_for)
        return [*self.unhealthy(), *(f"{name}: {reason}" for name, reason in waits.items() if reason)]
