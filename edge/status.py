"""How a gateway is, at one moment: what is looked up when somebody asks, as metrics and as words."""

from collections.abc import Callable, Iterable, Mapping

from msgspec import Struct
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from dataflows.cache.bound import upper_bound
from dataflows.running.meters import counter, gauge
from dataflows.running.pulse import unhealthy

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


class StatusCollector(Collector):
    """Renders a `Status` whenever the registry is collected."""

    def __init__(self, status: Callable[[], Status]) -> None:
        self._status = status

    def collect(self) -> Iterable[Metric]:
        now = self._status()
        events = {(source,): count for source, count in now.events.items()}
        yield counter("events", "Events accepted, by source.", ("source",), events)
        yield counter("losses", "Events lost, by source and reason.", ("source", "reason"), now.losses)
        yield counter("incidents", "What went wrong at the door without a loss.", ("source", "kind"), now.incidents)
        yield gauge("queue_age_seconds", "Age of the oldest event without a committed verdict.", now.queue_age_s)
        yield gauge("spool_bytes", "Bytes of events waiting in the spool.", now.spool_bytes)
        yield gauge("spool_limit_bytes", "Bytes the spool may hold.", now.spool_max_bytes)
        yield gauge("progress_age_seconds", "Since the flow last took a turn.", now.idle_s)
        yield gauge("ready", "1 where /readyz answers 200.", not unready(now))
        release = GaugeMetricFamily("headwater_release_info", "The release in force.", labels=("release", "sha256"))
        release.add_metric((now.release, now.release_sha256), 1)
        yield release
        yield gauge("policy_number", "The policy in force.", now.policy)
        yield from _cache_metrics(now)


def _cache_metrics(now: Status) -> Iterable[Metric]:
    yield gauge("cache_entries", "Templates that the verdict cache knows.", now.cache_entries)
    for name, purpose in _CACHE_COUNTS.items():
        yield counter(f"cache_{name}", purpose, (), {(): now.cache.get(name, 0)})
    bound = upper_bound(now.cache.get("audits", 0), now.cache.get("disagreements", 0))
    yield gauge("cache_disagreement_bound", "Share of audits that contradict the cache, upper bound at 95 %.", bound)
