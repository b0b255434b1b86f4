"""The way to the centre and back: a real broker, a real Kafka, the bridge as a process, and all that befalls them."""

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from random import Random
from threading import Event, Thread
from time import monotonic, sleep
from typing import Any

import pytest

from central.local_kafka import LocalKafka
from central.topics import Names
from dataflows.backoff import Backoff
from dataflows.connectors.courier import CourierSink, Limits
from dataflows.connectors.kafka import Cluster
from dataflows.connectors.kafka_publisher import KafkaProducer, Outgoing
from dataflows.connectors.uplink import LINE_BYTES
from models.contracts.errors import UnavailableError
from models.contracts.verdict import CENTRAL, PERSON
from models.contracts.wire import decode_dead_letter
from tests.real.bridge import (
    BridgeProcess,
    GatewaysDisk,
    carrier,
    delivered,
    ids_in,
    make_topics,
    produce,
    running,
    verdicts,
)
from tests.real.intake import wait_until
from tests.real.kafka import read_all
from tests.real.mosquitto import Mosquitto

pytestmark = pytest.mark.server("mosquitto")


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    broker = Mosquitto(tmp_path / "broker")
    broker.start()
    yield broker
    broker.stop(signal.SIGKILL)


@pytest.fixture
def names(kafka: LocalKafka, topic: str) -> Names:
    return make_topics(kafka, topic)


@pytest.fixture
def bridge(tmp_path: Path, broker: Mosquitto, kafka: LocalKafka, names: Names) -> Iterator[BridgeProcess]:
    with running(BridgeProcess(tmp_path, broker, kafka, names)) as bridge:
        yield bridge


def test_what_is_confirmed_to_a_gateway_is_in_kafka_byte_for_byte(
    broker: Mosquitto, kafka: LocalKafka, names: Names, bridge: BridgeProcess
) -> None:
    sent = verdicts(0, 2500)
    to_centre = carrier(broker)

    assert list(to_centre.deliver(sent)) == []

    found = read_all(kafka, names.verdicts)
    assert sorted(record.value for record in found) == sorted(sent)
    assert {record.key for record in found} == {f"gw~{at}".encode() for at in range(2500)}
    assert read_all(kafka, names.questions) == []
    assert list(to_centre.deliver([])) == []
    to_centre.close()
    assert bridge.stop() == 0


def test_a_bridge_says_whether_it_serves_and_what_it_waits_for(broker: Mosquitto, bridge: BridgeProcess) -> None:
    to_centre = carrier(broker)
    assert list(to_centre.deliver([b"no verdict"])) == []
    to_centre.close()
    wait_until(lambda: bridge.get("/readyz") == (200, "ok\n"), "ready", 30)
    figures = bridge.get("/metrics")[1]
    assert 'headwater_bridge_up{thread="downlink"} 1.0' in figures
    assert 'headwater_dead_letters_total{reason="not-a-verdict"} 1.0' in figures

    broker.stop(signal.SIGKILL)
    wait_until(lambda: bridge.get("/readyz")[0] == 503, "not ready", 30)
    assert "uplink: mqtt" in bridge.get("/readyz")[1]
    assert bridge.get("/healthz") == (200, "ok\n")


def test_a_gateway_gets_what_the_centre_and_people_say_of_its_events_and_nothing_else(
    broker: Mosquitto, kafka: LocalKafka, names: Names, bridge: BridgeProcess, tmp_path: Path
) -> None:
    its_own = verdicts(0, 5)
    answers = [*verdicts(0, 3, revision=CENTRAL), *verdicts(1, 2, revision=PERSON)]
    of_others = verdicts(0, 3, "other", revision=CENTRAL)
    disk = GatewaysDisk(tmp_path, broker)

    with disk.fetching():
        produce(kafka, names.verdicts, [*its_own, *answers, *of_others])
        wait_until(lambda: len(disk.lines()) >= 4, "four answers")
        produce(kafka, names.verdicts, verdicts(3, 4, revision=CENTRAL))
        wait_until(lambda: len(disk.lines()) >= 5, "one more")

    assert sorted(disk.lines()) == sorted([*answers, *verdicts(3, 4, revision=CENTRAL)])
    assert bridge.stop() == 0


def test_with_a_broker_that_takes_small_packets_only_answers_are_small_and_what_fits_into_none_is_left_out(
    tmp_path: Path, kafka: LocalKafka, names: Names
) -> None:
    broker = Mosquitto(tmp_path / "broker", "allow_anonymous true\nmax_packet_size 131072\n")
    broker.start()
    bridge = BridgeProcess(tmp_path, broker, kafka, names)
    answers = verdicts(0, 8, revision=CENTRAL, text="x" * 60_000)
    (too_long,) = verdicts(8, 9, revision=CENTRAL, text="x" * 140_000)
    last = verdicts(9, 10, revision=CENTRAL)
    disk = GatewaysDisk(tmp_path, broker)
    produce(kafka, names.verdicts, [*answers[:4], too_long, *answers[4:], *last])

    try:
        with running(bridge), disk.fetching():
            wait_until(lambda: len(disk.lines()) >= 9, "nine answers")
    finally:
        broker.stop(signal.SIGKILL)

    assert sorted(disk.lines()) == sorted([*answers, *last])
    assert bridge.said("answer_too_large") >= 1
    assert bridge.said("bridge_waits") == 0


def test_what_is_no_verdict_of_this_gateways_is_a_dead_letter_and_its_neighbours_go_on(
    tmp_path: Path, broker: Mosquitto, kafka: LocalKafka, names: Names
) -> None:
    (ours,) = verdicts(0, 1, route="escalated")
    (of_others,) = verdicts(0, 1, "other")
    (presumptuous,) = verdicts(1, 2, revision=CENTRAL)
    newer = ours.replace(b'"id":"gw~0"', b'"id":"gw~9","since_version_2":{"a":[1]}')
    unknown = ours.replace(b"verdict/1", b"verdict/2")
    torn = ours.replace(b"Failed", b"F\xff")
    deep = ours.replace(b'"id":', b'"depth":%b,"id":' % (b"[" * 5000 + b"]" * 5000))
    (late,) = verdicts(2, 3, received_at_ms=0)
    (early,) = verdicts(3, 4, received_at_ms=253_402_300_799_999)
    batch = [ours, b"\x00\xff no JSON", of_others, presumptuous, newer, unknown, torn, deep, late, early]
    to_centre = carrier(broker)

    with running(BridgeProcess(tmp_path, broker, kafka, names)):
        assert list(to_centre.deliver(batch)) == []
        assert list(to_centre.deliver(batch)) == []  # as after a crash
    to_centre.close()

    assert {record.value for record in read_all(kafka, names.verdicts)} == {ours, newer}
    assert {record.value for record in read_all(kafka, names.questions)} == {ours, newer}
    letters = {(each := decode_dead_letter(record.value)).id: each for record in read_all(kafka, names.dead_letters)}
    assert {(letter.reason, letter.raw) for letter in letters.values()} == {
        ("not-a-verdict", batch[1]),
        ("of-another-gateway", of_others),
        ("not-a-gateways-revision", presumptuous),
        ("not-a-verdict", unknown),
        ("not-a-verdict", torn),
        ("not-a-verdict", deep),
        ("too-old", late),
        ("clock-ahead", early),
    }
    assert {(letter.gateway, letter.topic) for letter in letters.values()} == {("gw", "headwater/gw/uplink")}


def test_a_verdict_that_is_too_large_is_a_dead_letter_wherever_that_shows(
    tmp_path: Path, broker: Mosquitto, kafka: LocalKafka, topic: str
) -> None:
    names = make_topics(kafka, topic, max_message_bytes="100000")
    noise = os.urandom(400_000).hex()  # which no compression makes small
    for_kafka = verdicts(0, 1, text=noise[:200_000])
    for_its_letter = verdicts(1, 2, text=noise[: LINE_BYTES - 1000])
    for_the_uplink = verdicts(2, 3, text="x" * LINE_BYTES)
    fits = verdicts(3, 5)
    to_centre = carrier(broker)
    with running(BridgeProcess(tmp_path, broker, kafka, names)) as bridge:
        (refusal,) = to_centre.deliver([*for_kafka, *for_its_letter, *for_the_uplink, *fits])
        assert (refusal.position, "the centre takes" in refusal.reason) == (2, True)
        assert bridge.stop() == 0
    to_centre.close()

    assert {record.value for record in read_all(kafka, names.verdicts)} == set(fits)
    letters = {letter.id: letter for letter in map(decode_dead_letter, values(kafka, names.dead_letters))}
    assert letters.keys() == {"gw~0", "gw~1"}
    assert {letter.reason for letter in letters.values()} == {"refused-by-sink"}
    assert [letters["gw~0"].raw, letters["gw~1"].raw] == [*for_kafka, *for_its_letter]


def test_a_dead_letter_that_its_topic_does_not_take_whole_is_kept_in_part(
    tmp_path: Path, broker: Mosquitto, kafka: LocalKafka, topic: str
) -> None:
    names = make_topics(kafka, topic, max_message_bytes="100000", letters_bytes="50000")
    noise = os.urandom(400_000)
    to_centre = carrier(broker)
    with running(BridgeProcess(tmp_path, broker, kafka, names)):
        assert list(to_centre.deliver([noise.replace(b"\n", b" ")])) == []
    to_centre.close()

    (letter,) = map(decode_dead_letter, values(kafka, names.dead_letters))
    assert letter.raw == noise.replace(b"\n", b" ")[: 16 << 10]
    assert letter.detail.endswith("; of its 400000 bytes the first 16384 are here")


def values(kafka: LocalKafka, topic: str) -> list[bytes]:
    return [record.value for record in read_all(kafka, topic)]


def test_without_a_bridge_a_gateway_learns_at_once_that_nobody_is_there(broker: Mosquitto) -> None:
    began = monotonic()
    with pytest.raises(UnavailableError, match=r"No matching subscribers \(16\); nobody who would answer"):
        carrier(broker).deliver(verdicts(0, 1))
    with pytest.raises(UnavailableError, match="nobody who would answer"):
        carrier(broker).deliver([])
    assert monotonic() - began < 3


def test_a_bridge_that_hangs_is_unavailable_after_a_bounded_wait(broker: Mosquitto, bridge: BridgeProcess) -> None:
    to_centre = carrier(broker, stall_s=3.0)
    delivered(to_centre, verdicts(0, 1))
    bridge.signal(signal.SIGSTOP)
    try:
        with pytest.raises(UnavailableError, match="no bridge has confirmed anything for 3 s"):
            to_centre.deliver(verdicts(1, 2))
    finally:
        bridge.signal(signal.SIGCONT)
    delivered(to_centre, verdicts(1, 2))
    assert bridge.said("stopping") == 0


def test_the_service_manager_hears_that_a_bridge_is_there_alive_and_stopping(
    tmp_path: Path, broker: Mosquitto, kafka: LocalKafka, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30)
        with running(BridgeProcess(tmp_path, broker, kafka, names)) as bridge:
            heard = [manager.recv(200).decode() for _ in range(3)]
            assert bridge.stop() == 0
            while heard[-1] != "STOPPING=1":
                heard.append(manager.recv(200).decode())

    assert heard[0] == "READY=1\nSTATUS=bridge carries"
    assert set(heard[1:-1]) == {"WATCHDOG=1"}


class SlowLine:
    """Passes bytes on to a broker, so many a second."""

    def __init__(self, port: int, bytes_per_s: int) -> None:
        self._to = port
        self._pace = bytes_per_s // 20
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                far = socket.create_connection(("127.0.0.1", self._to))
                for one, other in ((near, far), (far, near)):
                    Thread(target=self._pass, args=(one, other), daemon=True).start()

    def _pass(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while piece := one.recv(self._pace):
                other.sendall(piece)
                sleep(0.05)
        for each in (one, other):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


def test_a_line_too_slow_for_whole_messages_gets_smaller_ones(
    tmp_path: Path, broker: Mosquitto, kafka: LocalKafka, names: Names
) -> None:
    sent = verdicts(0, 1000)
    with closing(SlowLine(broker.port, 100_000)) as line, running(BridgeProcess(tmp_path, broker, kafka, names)):
        to_centre = carrier(broker, port=line.port, stall_s=1.5)
        delivered(to_centre, sent)
        to_centre.close()

    assert set(values(kafka, names.verdicts)) == set(sent)


def test_a_bridge_without_kafka_leaves_the_broker_and_comes_back_with_it(
    broker: Mosquitto, kafka: LocalKafka, names: Names, bridge: BridgeProcess
) -> None:
    to_centre = carrier(broker)
    delivered(to_centre, verdicts(0, 10))
    kafka.stop(signal.SIGKILL)
    with pytest.raises(UnavailableError, match=r"no bridge has confirmed|nobody who would answer"):
        to_centre.deliver(verdicts(10, 20))
    wait_until(lambda: bridge.said("bridge_waits"), "the bridge to say so")
    with pytest.raises(UnavailableError, match="nobody who would answer"):
        carrier(broker, "other").deliver([])

    kafka.start()
    delivered(to_centre, verdicts(10, 20))

    assert set(values(kafka, names.verdicts)) == set(verdicts(0, 20))
    assert bridge.stop() == 0


def test_a_bridge_that_has_nothing_to_do_learns_all_the_same_that_kafka_is_away(
    broker: Mosquitto, kafka: LocalKafka, bridge: BridgeProcess
) -> None:
    to_centre = carrier(broker)
    assert list(to_centre.deliver([])) == []
    to_centre.close()
    kafka.stop(signal.SIGKILL)

    wait_until(lambda: bridge.said("thread=uplink"), "the bridge to say so", 20)
    with pytest.raises(UnavailableError, match="nobody who would answer"):
        carrier(broker).deliver([])


def test_a_bridge_that_is_told_to_stop_while_kafka_is_away_is_gone_in_time(
    kafka: LocalKafka, broker: Mosquitto, bridge: BridgeProcess
) -> None:
    kafka.stop(signal.SIGKILL)
    with suppress(UnavailableError):
        carrier(broker).deliver(verdicts(0, 10))
    began = monotonic()

    assert bridge.stop() == 0
    assert monotonic() - began < 5


@pytest.mark.parametrize("rounds", [1, pytest.param(25, marks=pytest.mark.slow)])
def test_nothing_is_lost_either_way_while_everything_between_is_killed(  # noqa: PLR0917 - fixtures
    tmp_path: Path,
    broker: Mosquitto,
    kafka: LocalKafka,
    names: Names,
    rounds: int,
    progress: Callable[[str], None],
) -> None:
    chance = Random(rounds)
    gateways = [GatewaysDisk(tmp_path, broker, name) for name in ("gw-1", "gw-2")]
    bridges = [BridgeProcess(tmp_path, broker, kafka, names, name) for name in ("bridge-1", "bridge-2")]
    sent = 0
    with ExitStack() as opened:
        for bridge in bridges:
            opened.enter_context(running(bridge))
        sinks = [opened.enter_context(closing(to_centre(tmp_path, broker, gateway.name))) for gateway in gateways]
        centre = opened.enter_context(closing(KafkaProducer(Cluster(brokers=kafka.brokers), stall_s=60.0)))

        def talk() -> None:
            """Have each gateway send, and the centre answer, while nobody waits for anybody."""
            nonlocal sent
            for gateway, sink in zip(gateways, sinks, strict=True):
                sink.deposit(verdicts(sent, sent + 500, gateway.name, route="escalated"))
            if kafka.runs:
                lines = [line for gateway in gateways for line in verdicts(sent, sent + 500, gateway.name, **ANSWERED)]
                with suppress(UnavailableError):
                    centre.deliver([Outgoing(names.verdicts, b"any", line) for line in lines])
                    answered.append(sent)
            sent += 500

        answered: list[int] = []
        for gateway in gateways:
            opened.enter_context(gateway.fetching())
        for number in range(rounds):
            wounds = [*bridges, *bridges, broker, broker, kafka]
            chance.shuffle(wounds)
            for victim in wounds:
                progress(f"round {number} of {rounds}, {type(victim).__name__}, {sent} sent")
                talk()
                sleep(chance.random())
                victim.stop(signal.SIGKILL)
                talk()
                if isinstance(victim, BridgeProcess):
                    victim.launch()
                else:
                    victim.start()
        talk()
        wanted = {f"{gateway.name}~{at}" for gateway in gateways for at in range(sent)}
        wait_until(
            lambda: wanted <= {each for each, revision in ids_in(kafka, names.verdicts) if revision == 0}, "uplink", 120
        )
        for gateway in gateways:
            expected = {line for first in answered for line in verdicts(first, first + 500, gateway.name, **ANSWERED)}
            wait_until(lambda on=gateway, all_of=expected: all_of <= set(on.lines()), f"answers of {gateway.name}", 120)
            assert set(gateway.lines()) == expected

    assert {each for each, revision in ids_in(kafka, names.verdicts) if revision == 0} == wanted
    assert {each for each, _ in ids_in(kafka, names.questions)} == wanted
    assert read_all(kafka, names.dead_letters) == []


ANSWERED: dict[str, Any] = {"revision": CENTRAL, "release": "large-1"}


def to_centre(directory: Path, broker: Mosquitto, gateway: str) -> CourierSink[bytes]:
    return CourierSink(
        gateway,
        lambda: carrier(broker, gateway),
        list,
        directory / f"{gateway}-backlog.sqlite3",
        stop=Event(),
        limits=Limits(backoff=Backoff(first_s=0.2, most_s=2.0)),
    )
