"""Counts what a flow tells its observer, for Prometheus."""

import threading
import time
from bisect import bisect_left
from collections import Counter as CountOf
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from models.contracts.event import DeadLetter
from models.contracts.verdict import Verdict

_LATENCY_BUCKETS_S = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 60.0, 600.0)
_BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Meters:
    """Counts what the flow tells it; an `Observer`.

    Counts include what a replay after a crash repeats, and start at 0 with the process. Whatever is told of each event
    is counted per batch first: a call of the metrics library for each would cost the flow a quarter of its time.
    """

    def __init__(self, waiting: Callable[[], None] = lambda: None) -> None:
        """Call `waiting` as long as the flow waits for a sink."""
        self._waiting = waiting
        disable_created_metrics()  # type: ignore[no-untyped-call]  # no `_created` series beside each figure
        self.registry = registry = CollectorRegistry()
        self._taken = Counter("headwater_taken", "Events the flow took, by source.", ["source"], registry=registry)
        self._repeats = Counter(
            "headwater_repeats", "Events dropped as repeats, by source.", ["source"], registry=registry
        )
        self._verdicts = Counter(
            "headwater_verdicts", "Verdicts, by label and route.", ["label", "route"], registry=registry
        )
        self._dead_letters = Counter(
            "headwater_dead_letters", "Events without a verdict, by reason.", ["reason"], registry=registry
        )
        self._delivered = Counter(
            "headwater_delivered",
            "Payloads a sink's far end took; one payload of a file may be several verdicts.",
            ["sink"],
            registry=registry,
        )
        self._model_seconds = _Histogram(
            "headwater_model_seconds", "Time a batch spent in the model.", _LATENCY_BUCKETS_S
        )
        self._batch_events = _Histogram("headwater_batch_events", "Events the model was given at once.", _BATCH_BUCKETS)
        self._wait = _Histogram(
            "headwater_spool_wait_seconds",
            "From receipt to the flow, for the oldest event of a batch.",
            _LATENCY_BUCKETS_S,
        )
        self._latency = _Histogram(
            "headwater_latency_seconds", "From receipt of an event to its verdict.", _LATENCY_BUCKETS_S
        )
        for histogram in (self._model_seconds, self._batch_events, self._wait, self._latency):
            registry.register(histogram)
        self._backlog_bytes = Gauge(
            "headwater_sink_backlog_bytes", "What a sink has yet to deliver.", ["sink"], registry=registry
        )
        self._sink_up = Gauge(
            "headwater_sink_up", "1 where the sink's last attempt succeeded.", ["sink"], registry=registry
        )

        self._taken_of: dict[str, Counter] = {}  # the library looks a child up slowly
        self._verdicts_of: dict[tuple[str, str], Counter] = {}

    def follow(self, name: str, purpose: str, label: str, values: Mapping[str, Callable[[], float]]) -> None:
        """Show figures that others know, each as it is when somebody asks; `values` tells them by their label."""
        family = Gauge(f"headwater_{name}", purpose, [label], registry=self.registry)
        for known, value in values.items():
            family.labels(known).set_function(value)

    def arrived(self, source: str, records: int, received_at_ms: int) -> None:
        """Count events in, and how long the oldest waited in the spool."""
        taken = self._taken_of.get(source)
        if taken is None:
            taken = self._taken_of[source] = self._taken.labels(source)
        taken.inc(records)
        self._wait.observe(_since_s(received_at_ms))

    def repeated(self, source: str, events: int) -> None:
        """Count repeats."""
        self._repeats.labels(source).inc(events)

    def classified(self, events: int, seconds: float) -> None:
        """Time the model."""
        self._model_seconds.observe(seconds)
        self._batch_events.observe(events)

    def decided(self, verdicts: Sequence[Verdict]) -> None:
        """Count verdicts, and time their way from the door."""
        for label_and_route, count in CountOf([(verdict.label, verdict.route) for verdict in verdicts]).items():
            counter = self._verdicts_of.get(label_and_route)
            if counter is None:
                counter = self._verdicts_of[label_and_route] = self._verdicts.labels(*label_and_route)
            counter.inc(count)
        for received_at_ms, count in CountOf([verdict.received_at_ms for verdict in verdicts]).items():
            self._latency.observe(_since_s(received_at_ms), count)

    def buried(self, letters: Sequence[DeadLetter]) -> None:
        """Count dead letters."""
        for reason, count in CountOf(letter.reason for letter in letters).items():
            self._dead_letters.labels(reason).inc(count)

    def delivered(self, sink: str, payloads: int) -> None:
        """Count payloads that a far end took: messages, or for a file what was appended at once."""
        self._delivered.labels(sink).inc(payloads)

    def waiting(self, sink: str) -> None:  # noqa: ARG002 - a flow that waits by design is as well as one that turns
        """Pass it on."""
        self._waiting()

    def held(self, sink: str, backlog_bytes: int, *, failing: bool) -> None:
        """Show what a sink holds, and whether its far end answers."""
        self._backlog_bytes.labels(sink).set(backlog_bytes)
        self._sink_up.labels(sink).set(not failing)


def _since_s(unix_ms: int) -> float:
    return max(0.0, time.time() - unix_ms / 1e3)  # the clock may have stepped back


class _Histogram(Collector):
    """A histogram that takes the same figure many times at once; the library's takes one, and looks at every bucket."""

    def __init__(self, name: str, purpose: str, bounds: Sequence[float]) -> None:
        self._name = name
        self._purpose = purpose
        self._bounds = bounds
        self._lock = threading.Lock()
        self._counts = [0] * (len(bounds) + 1)  # each bucket by itself, and what is above all
        self._sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        with self._lock:
            self._counts[bisect_left(self._bounds, value)] += times  # a figure at a bound is below it
            self._sum += value * times

    def collect(self) -> Iterable[Metric]:
        with self._lock:
            counts, total = list(self._counts), self._sum
        bounds = [*map(str, map(float, self._bounds)), "+Inf"]
        yield HistogramMetricFamily(
            self._name, self._purpose, buckets=list(zip(bounds, accumulate(counts), strict=True)), sum_value=total
        )


def gauge(name: str, purpose: str, value: float) -> Metric:
    """Return a figure as it is now."""
    return GaugeMetricFamily(f"headwater_{name}", purpose, value=value)


def counter(name: str, purpose: str, labels: tuple[str, ...], counts: Mapping[Any, int]) -> Metric:
    """Return counts by their labels."""
    family = CounterMetricFamily(f"headwater_{name}", purpose, labels=labels)
    for key, count in counts.items():
        family.add_metric(key, count)
    return family
