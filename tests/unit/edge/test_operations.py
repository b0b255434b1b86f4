import http.client
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from threading import Thread

import msgspec
import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry, Counter

from dataflows.running.meters import Meters
from dataflows.running.operations import OperationsServer
from dataflows.running.pulse import Pulse, unhealthy
from edge.status import Status, StatusCollector, unready
from models.contracts.errors import UnavailableError
from models.contracts.event import DeadLetter
from models.contracts.scalars import EventId
from models.contracts.verdict import Verdict

WELL = Status(
    release="soc-triage-1",
    release_sha256="ab" * 32,
    policy=3,
    flow_begun=True,
    idle_s=0.1,
    intake_listening=True,
    spool_bytes=10,
    spool_max_bytes=100,
    spool_full=False,
    queue_age_s=0.5,
    events={"syslog-tcp": 12},
    losses={("syslog-udp", "receive-buffer"): 7},
    incidents={("syslog-tcp", "framing"): 1},
    cache_entries=5,
    cache={"hits": 90, "audits": 3},
)
STUCK = Status(
    release="soc-triage-1",
    release_sha256="ab" * 32,
    policy=3,
    flow_begun=True,
    idle_s=61.0,
    intake_listening=False,
    spool_bytes=100,
    spool_max_bytes=100,
    spool_full=True,
    queue_age_s=70.0,
    events={},
    losses={},
    incidents={},
    cache_entries=0,
    cache={},
)


def verdict(label: str, route: str) -> Verdict:
    return Verdict(
        id=EventId("o.1"),
        text="t",
        label=label,
        confidence=0.9,
        probabilities={label: 0.9},
        label_mass=1.0,
        fields={},
        route=route,  # type: ignore[arg-type]
        release="soc-triage-1",
        policy=3,
        source="syslog-tcp",
        received_at_ms=0,
    )


class Answers:
    """The server under test, and what it answers."""

    def __init__(self, status: Status, look: Callable[[], Status] | None = None) -> None:
        self.status = status
        self.meters = Meters()
        looked_up = look or (lambda: self.status)
        self.meters.registry.register(StatusCollector(looked_up))
        self.server = OperationsServer(
            "127.0.0.1",
            0,
            self.meters.registry,
            lambda: unhealthy(self.status.idle_s),
            lambda: unready(looked_up()),
        )
        self.server.start()

    def get(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=5)
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()


@pytest.fixture
def answers() -> Iterator[Answers]:
    running = Answers(WELL)
    yield running
    running.server.close()


def test_a_gateway_whose_flow_turns_is_healthy_and_ready() -> None:
    assert unhealthy(WELL.idle_s) == []
    assert unready(WELL) == []


def test_a_stuck_flow_is_unhealthy_and_everything_else_only_unready() -> None:
    assert unhealthy(STUCK.idle_s) == ["the flow has made no progress for 61 s"]
    assert unready(STUCK) == [
        "the flow has made no progress for 61 s",
        "the intake is not listening",
        "the spool is full: 100 of 100 bytes",
    ]


def test_a_gateway_that_has_not_begun_is_healthy_but_not_ready() -> None:
    starting = msgspec.structs.replace(WELL, flow_begun=False)
    assert unhealthy(starting.idle_s) == []
    assert unready(starting) == ["the flow has not begun"]


def test_answers_say_in_words_what_is_wrong(answers: Answers) -> None:
    assert answers.get("/healthz") == (200, "ok\n")
    assert answers.get("/readyz") == (200, "ok\n")
    answers.status = STUCK
    assert answers.get("/healthz")[0] == 503
    assert answers.get("/readyz") == (503, "\n".join(unready(STUCK)) + "\n")
    assert answers.get("/secret")[0] == 404


def test_every_count_reaches_metrics_under_its_labels(answers: Answers) -> None:
    answers.meters.arrived("syslog-tcp", 3, 0)
    answers.meters.repeated("syslog-tcp", 1)
    answers.meters.classified(2, 0.25)
    answers.meters.decided(
        [verdict("benign", "accepted"), verdict("benign", "accepted"), verdict("critical", "review")]
    )
    answers.meters.buried(
        [DeadLetter(id=EventId("o.2"), source="s", received_at_ms=0, reason="not-json", detail="", raw=b"x")]
    )
    answers.meters.delivered("verdicts", 3)
    answers.meters.held("siem", 4096, failing=True)
    lines = answers.get("/metrics")[1].splitlines()
    for line in (
        'headwater_events_total{source="syslog-tcp"} 12.0',
        'headwater_taken_total{source="syslog-tcp"} 3.0',
        'headwater_incidents_total{kind="framing",source="syslog-tcp"} 1.0',
        'headwater_repeats_total{source="syslog-tcp"} 1.0',
        "headwater_model_seconds_sum 0.25",
        "headwater_batch_events_sum 2.0",
        'headwater_verdicts_total{label="benign",route="accepted"} 2.0',
        'headwater_verdicts_total{label="critical",route="review"} 1.0',
        'headwater_dead_letters_total{reason="not-json"} 1.0',
        'headwater_losses_total{reason="receive-buffer",source="syslog-udp"} 7.0',
        'headwater_delivered_total{sink="verdicts"} 3.0',
        'headwater_sink_backlog_bytes{sink="siem"} 4096.0',
        'headwater_sink_up{sink="siem"} 0.0',
        "headwater_spool_bytes 10.0",
        "headwater_queue_age_seconds 0.5",
        f'headwater_release_info{{release="soc-triage-1",sha256="{"ab" * 32}"}} 1.0',
        "headwater_policy_number 3.0",
        "headwater_ready 1.0",
    ):
        assert line in lines


def test_the_latency_of_every_event_is_counted_once_however_many_came_together(answers: Answers) -> None:
    now_ms = int(time.time() * 1e3)
    hour_ms = 3_600_000
    stamps = [now_ms - hour_ms] * 3 + [now_ms - 90_000] * 2 + [now_ms + hour_ms]  # the clock stepped back
    answers.meters.decided([replace(verdict("benign", "accepted"), received_at_ms=stamp) for stamp in stamps])
    figures = dict(line.rsplit(" ", 1) for line in answers.get("/metrics")[1].splitlines())
    found = {
        bound: figures[f'headwater_latency_seconds_bucket{{le="{bound}"}}'] for bound in ("0.002", "60.0", "600.0")
    }
    assert found == {"0.002": "1.0", "60.0": "1.0", "600.0": "3.0"}
    assert figures['headwater_latency_seconds_bucket{le="+Inf"}'] == "6.0"
    assert figures["headwater_latency_seconds_count"] == "6.0"
    assert float(figures["headwater_latency_seconds_sum"]) == pytest.approx(3 * 3600 + 2 * 90, rel=0.01)


def test_a_window_costs_the_flow_less_than_one_labelled_count_for_each_event() -> None:
    meters, library = Meters(), Counter("one", "At a time.", ["label", "route"], registry=CollectorRegistry())
    window = [verdict("benign", "accepted")] * 64

    def one_by_one() -> None:
        for decided in window:
            library.labels(decided.label, decided.route).inc()

    assert fastest(lambda: meters.decided(window)) < fastest(one_by_one) / 2


def fastest(work: Callable[[], None]) -> float:
    """Return the least of many processor times: what the work costs where nothing interferes."""
    found = []
    for _ in range(50):
        began = time.thread_time()
        for _ in range(5):
            work()
        found.append(time.thread_time() - began)
    return min(found)


def test_every_metric_has_help_a_unit_and_an_honest_suffix(answers: Answers) -> None:
    answers.meters.classified(2, 0.25)
    text = answers.get("/metrics")[1]
    kinds = dict(line.split()[2:4] for line in text.splitlines() if line.startswith("# TYPE"))
    helped = {line.split()[2] for line in text.splitlines() if line.startswith("# HELP")}
    assert set(kinds) == helped
    for name, kind in kinds.items():
        assert name.startswith("headwater_")
        assert (kind == "counter") == name.endswith("_total")
        assert not name.endswith(("_ms", "_milliseconds", "_created"))


@pytest.mark.server("promtool")
def test_promtool_finds_nothing_to_say_about_the_metrics(answers: Answers) -> None:
    promtool = shutil.which("promtool")
    assert promtool is not None
    answers.meters.held("siem", 4096, failing=True)
    answers.meters.decided([verdict("benign", "accepted")])
    said = subprocess.run(
        [promtool, "check", "metrics"], input=answers.get("/metrics")[1], capture_output=True, text=True, check=False
    )
    assert (said.returncode, said.stdout + said.stderr) == (0, "")


def test_a_spool_that_cannot_be_asked_is_an_answer_too() -> None:
    broken: list[str] = []

    def status() -> Status:
        if broken:  # a registry looks once at what it is given
            raise UnavailableError("spool s: its state cannot be read: disk I/O error")
        return WELL

    running = Answers(WELL, status)
    broken.append("now")
    try:
        assert running.get("/readyz") == (503, "spool s: its state cannot be read: disk I/O error\n")
        assert running.get("/metrics")[0] == 503
        assert running.get("/healthz") == (200, "ok\n")
    finally:
        running.server.close()


def test_a_port_in_use_is_named_with_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            UnavailableError, match=rf"^`operations`: tcp 127\.0\.0\.1:{port} cannot be bound: .*another port"
        ):
            OperationsServer("127.0.0.1", port, Meters().registry, list, list)


def test_clients_that_hold_connections_open_do_not_add_up_to_threads_without_end(answers: Answers) -> None:
    idle = [socket.create_connection(("127.0.0.1", answers.server.port)) for _ in range(40)]
    closed = []

    def read(sock: socket.socket) -> None:
        sock.settimeout(1.0)
        try:
            closed.append(sock.recv(1) == b"")
        except TimeoutError:
            closed.append(False)

    readers = [Thread(target=read, args=(sock,)) for sock in idle]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    for sock in idle:
        sock.close()
    assert closed.count(False) == 8


def test_a_flow_that_waits_for_a_sink_is_as_alive_as_one_that_turns() -> None:
    pulse = Pulse()
    Meters(pulse.beat).waiting("siem")
    assert pulse.begun.is_set()
