"""`/healthz`, `/readyz` and `/metrics` on loopback: what a supervisor, a balancer and Prometheus ask a gateway.

What the flow does is counted as it happens (`Meters`); what can be looked up is looked up when somebody asks
(`Status`). Both stand in a registry of their own: bytewax's web server would bind every interface.
"""

import threading
import time
from bisect import bisect_left
from collections import Counter as CountOf
from collections.abc import Callable, Iterable, Mapping, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import accumulate
from socket import socket
from typing import Any

from msgspec import Struct
from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from dataflows.cache.bound import upper_bound
from dataflows.connectors.binding import unbindable
from edge.config import Operations
from models.contracts.errors import UnavailableError
from models.contracts.event import DeadLetter
from models.contracts.verdict import Verdict

_MAX_REQUESTS = 8  # at once; whoever asks more often has its connection closed
_REQUEST_TIMEOUT_S = 5.0
_PROGRESS_WITHIN_S = 60.0  # a batch of a slow model takes tens of seconds; a stuck flow takes for ever
_LATENCY_BUCKETS_S = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 60.0, 600.0)
_BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)

_CACHE_COUNTS = {
    "hits": "Events the verdict cache answered.",
    "asked": "Events the model was asked about because the verdict cache had no answer.",
    "audits": "Hits that the model was asked about all the same.",
    "disagreements": "Audits that contradicted the verdict cache; each removed a template.",
    "corrected": "Verdicts taken back by one of a higher revision.",
    "refused": "Templates that are never to answer.",
    "expired": "Templates that were too old or idle.",
    "evicted": "Templates that had to make room.",
}


class Status(Struct, frozen=True, kw_only=True):
    """How the gateway is, at one moment."""

    release: str  # `<name>-<number>`
    release_sha256: str
    policy: int
    flow_begun: bool
    idle_s: float  # since the flow last took a turn
    intake_listening: bool
    spool_bytes: int
    spool_max_bytes: int
    spool_full: bool
    queue_age_s: float  # of the oldest event without a committed verdict
    events: Mapping[str, int]  # by source; this and what follows since the spool was made, and exact
    losses: Mapping[tuple[str, str], int]  # by source and reason
    incidents: Mapping[tuple[str, str], int]  # by source and what happened; no event is known to be lost by them
    cache_entries: int
    cache: Mapping[str, int]  # what the verdict cache counted since the process began


def unhealthy(idle_s: float) -> list[str]:
    """Say why a restart would help a flow that has been idle for so long; nothing where it would not."""
    return [f"the flow has made no progress for {idle_s:.0f} s"] if idle_s > _PROGRESS_WITHIN_S else []


def unready(status: Status) -> list[str]:
    """Say why events should go elsewhere for now."""
    reasons = unhealthy(status.idle_s)
    if not status.flow_begun:
        reasons.append("the flow has not begun")
    if not status.intake_listening:
        reasons.append("the intake is not listening")
    if status.spool_full:
        reasons.append(f"the spool is full: {status.spool_bytes} of {status.spool_max_bytes} bytes")
    return reasons


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


class _StatusCollector(Collector):
    """Renders a `Status` whenever the registry is collected."""

    def __init__(self, status: Callable[[], Status]) -> None:
        self._status = status

    def collect(self) -> Iterable[Metric]:
        now = self._status()
        events = {(source,): count for source, count in now.events.items()}
        yield _counter("events", "Events accepted, by source.", ("source",), events)
        yield _counter("losses", "Events lost, by source and reason.", ("source", "reason"), now.losses)
        yield _counter("incidents", "What went wrong at the door without a loss.", ("source", "kind"), now.incidents)
        yield _gauge("queue_age_seconds", "Age of the oldest event without a committed verdict.", now.queue_age_s)
        yield _gauge("spool_bytes", "Bytes of events waiting in the spool.", now.spool_bytes)
        yield _gauge("spool_limit_bytes", "Bytes the spool may hold.", now.spool_max_bytes)
        yield _gauge("progress_age_seconds", "Since the flow last took a turn.", now.idle_s)
        yield _gauge("ready", "1 where /readyz answers 200.", not unready(now))
        release = GaugeMetricFamily("headwater_release_info", "The release in force.", labels=("release", "sha256"))
        release.add_metric((now.release, now.release_sha256), 1)
        yield release
        yield _gauge("policy_number", "The policy in force.", now.policy)
        yield from _cache_metrics(now)


def _cache_metrics(now: Status) -> Iterable[Metric]:
    yield _gauge("cache_entries", "Templates that the verdict cache knows.", now.cache_entries)
    for name, purpose in _CACHE_COUNTS.items():
        yield _counter(f"cache_{name}", purpose, (), {(): now.cache.get(name, 0)})
    bound = upper_bound(now.cache.get("audits", 0), now.cache.get("disagreements", 0))
    yield _gauge("cache_disagreement_bound", "Share of audits that contradict the cache, upper bound at 95 %.", bound)


def _gauge(name: str, purpose: str, value: float) -> Metric:
    return GaugeMetricFamily(f"headwater_{name}", purpose, value=value)


def _counter(name: str, purpose: str, labels: tuple[str, ...], counts: Mapping[Any, int]) -> Metric:
    family = CounterMetricFamily(f"headwater_{name}", purpose, labels=labels)
    for key, count in counts.items():
        family.add_metric(key, count)
    return family


class OperationsServer:
    """Answers on loopback from a few threads, each request within a few seconds."""

    def __init__(
        self, config: Operations, meters: Meters, idle_s: Callable[[], float], status: Callable[[], Status]
    ) -> None:
        """Bind at once, so that a port in use is an error of the start.

        Raises:
            ConfigError: the address cannot be bound.
            UnavailableError: it cannot be bound now; another start may help.
        """
        meters.registry.register(_StatusCollector(status))
        handler = type(
            "_BoundHandler",
            (_Handler,),
            {"registry": meters.registry, "idle_s": staticmethod(idle_s), "status": staticmethod(status)},
        )
        try:
            self._server = _BoundedServer((config.host, config.port), handler)
        except OSError as error:
            raise unbindable("`operations`", "tcp", config.host, config.port, error) from error
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="operations", daemon=True)

    @property
    def port(self) -> int:
        """Where it listens; differs from the configuration where that says 0."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()


class _BoundedServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64  # waits in the kernel; shorter, and a burst of probes would wait for a resent SYN

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._slots = threading.BoundedSemaphore(_MAX_REQUESTS)
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._slots.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, request: socket | tuple[bytes, socket], client_address: Any) -> None:
        """Say nothing: a client that hangs up early is not our business."""


class _Handler(BaseHTTPRequestHandler):
    registry: CollectorRegistry
    idle_s: Callable[[], float]  # asked alone for /healthz: a disk that fails is nothing a restart would mend
    status: Callable[[], Status]

    timeout = _REQUEST_TIMEOUT_S  # for each read of the socket
    server_version = "headwater"
    sys_version = ""

    def do_GET(self) -> None:
        try:
            self._look_up()
        except UnavailableError as error:
            self._answer_reasons([str(error)])

    def _look_up(self) -> None:
        match self.path.partition("?")[0]:
            case "/metrics":
                self._answer(HTTPStatus.OK, generate_latest(self.registry), "text/plain; version=0.0.4; charset=utf-8")
            case "/healthz":
                self._answer_reasons(unhealthy(self.idle_s()))
            case "/readyz":
                self._answer_reasons(unready(self.status()))
            case _:
                self._answer(HTTPStatus.NOT_FOUND, b"/healthz, /readyz or /metrics\n", "text/plain; charset=utf-8")

    def _answer_reasons(self, reasons: list[str]) -> None:
        status = HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK
        self._answer(status, ("\n".join(reasons or ["ok"]) + "\n").encode(), "text/plain; charset=utf-8")

    def _answer(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in http.server
        """Nothing: a scrape is no decision."""
