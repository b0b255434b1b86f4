"""MQTT from a real broker into the spool, through everything that a broker and we can do to each other."""

import json
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import paho.mqtt.client as mqtt
import pytest
import trustme
from paho.mqtt.enums import CallbackAPIVersion

from dataflows.connectors.mqtt import Session
from tests.real.intake import IntakeProcess, running, wait_until
from tests.real.mosquitto import Mosquitto

pytestmark = pytest.mark.server("mosquitto")


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    broker = Mosquitto(tmp_path / "broker")
    broker.start()
    yield broker
    broker.stop(signal.SIGKILL)


def source(broker: Mosquitto, more: str = "") -> str:
    return (
        f'[[sources]]\nkind = "mqtt"\nname = "devices"\nport = {broker.port}\n'
        f'topics = ["devices/+/log", "gates/#"]\n{more}'
    )


class Publisher:
    """Publishes with acknowledgement, through restarts of the broker."""

    def __init__(self, broker: Mosquitto) -> None:
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        self._client.reconnect_delay_set(1, 1)
        self._client.max_inflight_messages_set(1000)
        self._client.connect("127.0.0.1", broker.port)
        self._client.loop_start()
        wait_until(self._client.is_connected, "the publisher's connection")

    def publish(self, *payloads: str, topic: str = "devices/7/log", qos: int = 1) -> None:
        wait_until(self._client.is_connected, "the publisher's connection")
        sent = [self._client.publish(topic, payload, qos=qos) for payload in payloads]
        for each in sent:
            each.wait_for_publish(30)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def publisher(broker: Mosquitto) -> Iterator[Publisher]:
    publisher = Publisher(broker)
    yield publisher
    publisher.close()


def connected(intake: IntakeProcess, times: int = 1) -> None:
    # A new session has no subscription before the broker says so: what is published until then is for nobody.
    wait_until(lambda: intake.log.read_text().count("broker_subscribed") >= times, "the subscription")


def test_every_published_message_is_stored_once(broker: Mosquitto, publisher: Publisher, tmp_path: Path) -> None:
    messages = [f"message {n}" for n in range(3000)]
    with running(IntakeProcess(tmp_path, source(broker))) as intake:
        connected(intake)
        publisher.publish(*messages)
        publisher.publish("from a gate", topic="gates/north/1")
        publisher.publish("unwanted", topic="elsewhere")
        intake.wait_for_events(3001)
        assert intake.stop() == 0

    assert intake.records() == [*(message.encode() for message in messages), b"from a gate"]


def test_what_is_published_while_the_intake_is_away_waits_for_it(
    broker: Mosquitto, publisher: Publisher, tmp_path: Path
) -> None:
    intake = IntakeProcess(tmp_path, source(broker))
    with running(intake):
        connected(intake)
        intake.stop()
    publisher.publish("meanwhile")
    with running(intake):
        intake.wait_for_events(1)
        intake.stop()

    assert intake.records() == [b"meanwhile"]


def test_a_session_that_the_broker_began_anew_is_remembered_before_its_first_message(
    broker: Mosquitto, publisher: Publisher, tmp_path: Path
) -> None:
    intake = IntakeProcess(tmp_path, source(broker))
    with running(intake):
        connected(intake)
        publisher.publish("door open")
        intake.wait_for_events(1)
        before = intake.mark("devices")
        intake.stop()
    broker.stop()
    (broker.directory / "data" / "mosquitto.db").unlink()
    broker.start()
    with running(intake):
        wait_until(lambda: intake.mark("devices") != before, "the new session in the spool")
        intake.stop()

    assert intake.events() == 1


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        (('["devices/#"]', '["devices/7/#"]'), [b"7"]),
        (('["devices/7/#"]', '["devices/#"]'), [b"7", b"8"]),
        (('["devices/7/#", "devices/8/#"]', '["devices/8/#"]'), [b"8"]),
    ],
)
def test_filters_that_are_no_longer_configured_bring_nothing_more(
    broker: Mosquitto, publisher: Publisher, tmp_path: Path, filters: tuple[str, str], wanted: list[bytes]
) -> None:
    before, after = filters
    intake = IntakeProcess(tmp_path, source(broker).replace('["devices/+/log", "gates/#"]', before))
    with running(intake):
        connected(intake)
        wait_until(lambda: intake.mark("devices"), "the session in the spool")
        intake.kill()
    intake.config.write_text(intake.config.read_text().replace(before, after))
    with running(intake):
        wait_until(lambda: _filters(intake) == json.loads(after), "the end of the old subscriptions")
        publisher.publish("7", topic="devices/7/log")
        publisher.publish("8", topic="devices/8/log")
        publisher.publish("9", topic=json.loads(after)[0].replace("#", "last"))
        wait_until(lambda: intake.records()[-1:] == [b"9"], "the last message")
        intake.stop()

    assert intake.records() == [*wanted, b"9"]
    assert intake.status().counters.incidents == {}


def _filters(intake: IntakeProcess) -> list[str]:
    mark = intake.mark("devices")
    return [] if mark is None else list(msgspec.msgpack.decode(mark, type=Session).filters)


@pytest.mark.parametrize("kills", [3, pytest.param(60, marks=pytest.mark.slow)])
def test_killing_the_intake_under_load_neither_loses_nor_doubles_a_message(
    broker: Mosquitto, publisher: Publisher, tmp_path: Path, kills: int, progress: Callable[[str], None]
) -> None:
    intake = IntakeProcess(tmp_path, source(broker, "receive_maximum = 200\n"))
    per_round = 1500
    for number in range(kills):
        progress(f"kill {number} of {kills}")
        with running(intake):
            connected(intake, number + 1)
            before = intake.events()
            publisher.publish(*(f"round {number} message {n}" for n in range(per_round)))
            wait_until(lambda at_least=before: intake.events() > at_least, "some events")
            intake.kill()
    with running(intake):
        wait_until(lambda: len(set(intake.records())) == kills * per_round, "every message")
        intake.stop()

    assert {record: n for record, n in Counter(intake.records()).items() if n > 1} == {}


def test_a_killed_broker_is_found_again(broker: Mosquitto, publisher: Publisher, tmp_path: Path) -> None:
    with running(IntakeProcess(tmp_path, source(broker))) as intake:
        connected(intake)
        publisher.publish("before")
        intake.wait_for_events(1)
        broker.stop(signal.SIGKILL)
        broker.start()
        connected(intake, 2)
        publisher.publish("after")
        wait_until(lambda: b"after" in intake.records(), "the message after the restart")
        intake.stop()

    assert intake.status().counters.incidents["devices", "disconnects"] >= 1


def test_a_broker_that_is_away_at_the_start_is_not_an_error(broker: Mosquitto, tmp_path: Path) -> None:
    broker.stop()
    with running(IntakeProcess(tmp_path, source(broker))) as intake:
        wait_until(lambda: "no broker listens there" in intake.log.read_text(), "the reason in the log")
        broker.start()
        connected(intake)
        assert intake.stop() == 0


def test_messages_without_acknowledgement_and_empty_ones_are_told_apart(
    broker: Mosquitto, publisher: Publisher, tmp_path: Path
) -> None:
    with running(IntakeProcess(tmp_path, source(broker))) as intake:
        connected(intake)
        publisher.publish("at most once", qos=0)
        publisher.publish("")
        publisher.publish("exactly once", qos=2)
        intake.wait_for_events(2)
        intake.stop()

    assert intake.records() == [b"at most once", b"exactly once"]
    assert intake.status().counters.incidents["devices", "messages-empty"] == 1


def test_each_message_keeps_the_topic_it_came_by_and_a_long_one_is_cut(
    broker: Mosquitto, publisher: Publisher, tmp_path: Path
) -> None:
    with running(IntakeProcess(tmp_path, source(broker))) as intake:
        connected(intake)
        publisher.publish("one", "two", topic="devices/7/log")
        publisher.publish("three", topic=f"gates/{'x' * 2000}")
        intake.wait_for_events(3)
        intake.stop()

    topics = [topic for arrival in intake.arrivals() for topic in arrival.topics]
    assert topics == ["devices/7/log", "devices/7/log", f"gates/{'x' * 1017}…"]


def test_a_long_payload_is_cut_one_byte_behind_the_limit(
    broker: Mosquitto, publisher: Publisher, tmp_path: Path
) -> None:
    with running(IntakeProcess(tmp_path, source(broker, "max_event_bytes = 100\n"))) as intake:
        connected(intake)
        publisher.publish("x" * 100, "y" * 5000)
        intake.wait_for_events(2)
        intake.stop()

    assert intake.records() == [b"x" * 100, b"y" * 101]


def test_a_full_spool_leaves_messages_with_the_broker(broker: Mosquitto, publisher: Publisher, tmp_path: Path) -> None:
    intake = IntakeProcess(tmp_path, source(broker, "receive_maximum = 50\n"), spool_max_bytes=1 << 20)
    payloads = [f"{n:05} {'x' * 4000}" for n in range(600)]
    with running(intake):
        connected(intake)
        publisher.publish(*payloads)
        wait_until(lambda: intake.status().refusing, "a full spool")
        stored = intake.events()
        assert stored < len(payloads)
        assert intake.status().bytes <= 1 << 20
        assert intake.stop() == 0
    intake.config.write_text(intake.config.read_text().replace(str(1 << 20), str(16 << 20)))
    with running(intake):
        intake.wait_for_events(len(payloads))
        intake.stop()

    assert intake.records() == [payload.encode() for payload in payloads]
    assert intake.status().counters.losses == {}


class Identities:
    """One authority, a broker's certificate and clients'."""

    def __init__(self, directory: Path) -> None:
        self.authority = trustme.CA()
        self.ca = directory / "ca.pem"
        self.authority.cert_pem.write_to_path(self.ca)
        self.server = self._issue(directory / "server.pem", "127.0.0.1", "localhost")
        self.client = self._issue(directory / "client.pem", "gw-1")
        self.stranger = directory / "stranger.pem"
        trustme.CA().issue_cert("gw-1").private_key_and_cert_chain_pem.write_to_path(self.stranger)

    def _issue(self, path: Path, *names: str) -> Path:
        self.authority.issue_cert(*names).private_key_and_cert_chain_pem.write_to_path(path)
        return path


@pytest.fixture
def identities(tmp_path: Path) -> Identities:
    return Identities(tmp_path)


@pytest.fixture
def secure_broker(tmp_path: Path, identities: Identities) -> Iterator[Mosquitto]:
    broker = Mosquitto(
        tmp_path / "broker",
        f"cafile {identities.ca}\ncertfile {identities.server}\nkeyfile {identities.server}\n"
        "require_certificate true\nallow_anonymous true\n",
    )
    broker.start()
    yield broker
    broker.stop(signal.SIGKILL)


def test_a_client_certificate_opens_the_broker(
    secure_broker: Mosquitto, identities: Identities, tmp_path: Path
) -> None:
    tls = f'tls = {{ ca = "{identities.ca}", certificate = "{identities.client}", key = "{identities.client}" }}\n'
    with running(IntakeProcess(tmp_path, source(secure_broker, tls))) as intake:
        connected(intake)
        client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        client.tls_set(str(identities.ca), str(identities.client), str(identities.client))
        client.connect("127.0.0.1", secure_broker.port)
        client.loop_start()
        client.publish("devices/1/log", "sealed", qos=1).wait_for_publish(30)
        client.disconnect()
        client.loop_stop()
        intake.wait_for_events(1)
        intake.stop()

    assert intake.records() == [b"sealed"]


@pytest.mark.parametrize(
    ("which", "words"),
    [
        ("a stranger's certificate", "does not accept our certificate"),
        ("no certificate", "does not accept our certificate"),
        ("another authority", "certificate is not trusted"),
    ],
)
def test_what_the_broker_dislikes_is_said_in_words(
    secure_broker: Mosquitto, identities: Identities, tmp_path: Path, which: str, words: str
) -> None:
    other = tmp_path / "other-ca.pem"
    trustme.CA().cert_pem.write_to_path(other)
    tls = {
        "a stranger's certificate": f'ca = "{identities.ca}", certificate = "{identities.stranger}", '
        f'key = "{identities.stranger}"',
        "no certificate": f'ca = "{identities.ca}"',
        "another authority": f'ca = "{other}"',
    }[which]
    with running(IntakeProcess(tmp_path, source(secure_broker, f"tls = {{ {tls} }}\n"))) as intake:
        wait_until(lambda: words in intake.log.read_text(), words)
        assert intake.stop() == 0


def test_a_wrong_password_is_said_in_words(tmp_path: Path) -> None:
    broker = Mosquitto(tmp_path / "broker", "allow_anonymous false\n")
    broker.start()
    (tmp_path / "password").write_text("wrong\n")
    credentials = f'username = "gw"\npassword_file = "{tmp_path}/password"\n'
    try:
        with running(IntakeProcess(tmp_path, source(broker, credentials))) as intake:
            wait_until(lambda: "username" in intake.log.read_text(), "what to do")
            assert intake.stop() == 0
    finally:
        broker.stop()
    assert intake.status().counters.incidents["devices", "connects-refused"] >= 1
