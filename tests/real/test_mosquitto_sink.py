"""The MQTT sink against a real broker: kills, refusals, certificates."""

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from threading import Condition, Event

import pytest
import trustme
from paho.mqtt.client import Client, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from dataflows.backoff import Backoff
from dataflows.connectors.courier import CourierSink, Limits
from dataflows.connectors.mqtt_publisher import MqttCarrier, Publishing
from dataflows.connectors.tls import client_context
from models.contracts.errors import UnavailableError
from models.contracts.event import DeadLetter
from tests.real.mosquitto import Mosquitto

pytestmark = pytest.mark.server("mosquitto")

TOPIC = "headwater/verdicts"


Start = Callable[..., Mosquitto]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts brokers with further settings; none outlives its test."""
    running: list[Mosquitto] = []

    def begin(settings: str = "allow_anonymous true\n") -> Mosquitto:
        found = Mosquitto(tmp_path / f"broker-{len(running)}", settings)
        running.append(found)
        found.start()
        return found

    yield begin
    for found in running:
        found.stop(signal.SIGKILL)


@pytest.fixture
def broker(start: Start) -> Mosquitto:
    return start()


class Subscriber:
    """Collects what arrives, and connects again by itself."""

    def __init__(self, port: int) -> None:
        self._changed = Condition()
        self.messages: list[bytes] = []
        self._subscribed = Event()
        self._client = Client(CallbackAPIVersion.VERSION2, client_id="subscriber", protocol=MQTTv5)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda client, *_: client.subscribe(TOPIC, qos=1)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._take
        session = Properties(PacketTypes.CONNECT)
        session.SessionExpiryInterval = 3600
        self._client.connect("127.0.0.1", port, clean_start=False, properties=session)
        self._client.loop_start()
        assert self._subscribed.wait(20)

    def until(self, payloads: Sequence[bytes]) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: set(payloads) <= set(self.messages), timeout=30), len(self.messages)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _take(self, _client: object, _userdata: object, message: object) -> None:
        with self._changed:
            self.messages.append(message.payload)  # type: ignore[attr-defined]
            self._changed.notify_all()


def publishing(broker: Mosquitto, **changed: object) -> Publishing:
    return Publishing(
        **({"host": "127.0.0.1", "port": broker.port, "topic": TOPIC, "client_id": "gw-out", "stall_s": 3.0} | changed)
    )


def sink(tmp_path: Path, where: Publishing, dead_letters: CourierSink[DeadLetter] | None = None) -> CourierSink[bytes]:
    return CourierSink(
        "mqtt",
        lambda: MqttCarrier(where),
        list,
        tmp_path / "backlog.sqlite3",
        stop=Event(),
        limits=Limits(backoff=Backoff(first_s=0.05, most_s=0.2)),
        dead_letters=dead_letters,
    )


def numbered(start: int, stop: int) -> list[bytes]:
    return [b"%d" % n for n in range(start, stop)]


def test_more_than_may_be_in_flight_at_once_arrives_in_order(broker: Mosquitto) -> None:
    subscriber = Subscriber(broker.port)
    carrier = MqttCarrier(publishing(broker))

    assert carrier.deliver(numbered(0, 3000)) == []

    subscriber.until(numbered(0, 3000))
    assert subscriber.messages == numbered(0, 3000)
    carrier.close()
    subscriber.close()


def test_what_is_published_while_the_broker_is_killed_and_restarted_arrives(start: Start, tmp_path: Path) -> None:
    broker = start("allow_anonymous true\nautosave_on_changes true\n")  # it keeps the subscription at least
    subscriber = Subscriber(broker.port)
    with closing(sink(tmp_path, publishing(broker))) as outlet:
        outlet.deposit(numbered(0, 100))
        subscriber.until(numbered(0, 100))

        broker.stop(signal.SIGKILL)
        for epoch in range(1, 6):
            outlet.deposit(numbered(epoch * 100, epoch * 100 + 100))
        broker.start()

        subscriber.until(numbered(100, 600))
    subscriber.close()


def test_a_broker_that_is_away_is_unavailable_by_name(broker: Mosquitto) -> None:
    broker.stop()

    with pytest.raises(
        UnavailableError, match=rf"mqtt 127\.0\.0\.1:{broker.port}: Connection refused; what is to be pub"
    ):
        MqttCarrier(publishing(broker)).deliver([b"one"])


def test_a_broker_that_dies_while_we_are_idle_is_noticed_by_the_next_look(broker: Mosquitto) -> None:
    carrier = MqttCarrier(publishing(broker))
    carrier.deliver([b"one"])
    broker.stop()

    with pytest.raises(UnavailableError, match="Connection refused"):
        carrier.deliver([])


def test_a_refused_publication_is_no_delivery_and_names_the_remedy(start: Start, tmp_path: Path) -> None:
    (tmp_path / "acl").write_text("topic read #\ntopic write somewhere/else\n")
    broker = start(f"allow_anonymous true\nacl_file {tmp_path}/acl\n")
    carrier = MqttCarrier(publishing(broker))

    with pytest.raises(
        UnavailableError,
        match=r"refuses what we publish to `headwater/verdicts`: Not authorized \(135\); look at its acc",
    ):
        carrier.deliver([b"one"])


def test_a_message_too_large_for_the_broker_is_a_dead_letter_and_the_others_arrive(start: Start) -> None:
    broker = start("allow_anonymous true\nmax_packet_size 1000\n")
    subscriber = Subscriber(broker.port)
    carrier = MqttCarrier(publishing(broker))
    fits = b"x" * (1000 - 1 - 2 - 2 - len(TOPIC) - 2 - 1)

    refusals = carrier.deliver([b"before", fits, fits + b"x", b"y" * 5000, b"after"])

    assert [(refusal.position, refusal.reason) for refusal in refusals] == [
        (2, "a packet of 1001 bytes; the broker takes 1000 at the most"),
        (3, "a packet of 5026 bytes; the broker takes 1000 at the most"),
    ]
    subscriber.until([b"before", fits, b"after"])
    assert len(subscriber.messages) == 3
    carrier.close()
    subscriber.close()


def test_a_message_that_breaks_the_connection_each_time_is_a_dead_letter_in_the_end(start: Start) -> None:
    broker = start("allow_anonymous true\nmessage_size_limit 1000\n")
    subscriber = Subscriber(broker.port)
    carrier = MqttCarrier(publishing(broker))
    batch = [b"before", b"y" * 5000, b"after"]

    failures = 0
    while True:
        try:
            refusals = carrier.deliver(batch)
        except UnavailableError:
            failures += 1
            assert failures < 10
        else:
            break

    assert [(refusal.position, refusal.reason) for refusal in refusals] == [
        (1, "the connection broke 5 times when it alone was published")
    ]
    subscriber.until([b"before", b"after"])
    assert carrier.deliver([b"more"]) == []
    carrier.close()
    subscriber.close()


def test_a_broker_that_freezes_is_unavailable_after_a_bounded_wait(broker: Mosquitto) -> None:
    carrier = MqttCarrier(publishing(broker, stall_s=0.5))
    carrier.deliver([b"one"])
    assert broker._process is not None
    broker._process.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(UnavailableError, match=r"1 messages not acknowledged for 0\.5 s"):
            carrier.deliver([b"two"])
    finally:
        broker._process.send_signal(signal.SIGCONT)


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """An authority, the broker's certificate and a client's, as files."""
    folder = tmp_path / "certificates"
    folder.mkdir()
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    for name, subject in (("broker", "127.0.0.1"), ("client", "gw-1")):
        issued = authority.issue_cert(subject, common_name=subject)
        issued.private_key_pem.write_to_path(folder / f"{name}.key")
        issued.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
    return folder


def settings(certificates: Path) -> str:
    return (
        f"cafile {certificates}/ca.pem\ncertfile {certificates}/broker.pem\nkeyfile {certificates}/broker.key\n"
        "require_certificate true\nuse_identity_as_username true\nallow_anonymous false\n"
    )


def test_messages_are_published_over_tls_with_a_client_certificate(start: Start, certificates: Path) -> None:
    broker = start(settings(certificates))
    tls = client_context("mqtt", *(str(certificates / name) for name in ("ca.pem", "client.pem", "client.key")))
    carrier = MqttCarrier(publishing(broker, tls=tls))

    assert carrier.deliver(numbered(0, 50)) == []

    carrier.close()


def test_a_broker_that_wants_a_certificate_we_do_not_have_is_unavailable(start: Start, certificates: Path) -> None:
    broker = start(settings(certificates))
    carrier = MqttCarrier(publishing(broker, tls=client_context("mqtt", str(certificates / "ca.pem"))))

    with pytest.raises(UnavailableError, match=r"closed the connection|TLS"):
        carrier.deliver([b"one"])

    broker.stop()
