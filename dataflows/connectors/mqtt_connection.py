"""One connection to an MQTT 5 broker, QoS 1, served by the thread that uses it.

Paho's own threads, queue and reconnection are not used: what it holds in memory is lost with the process, and its
"published" is true of a refused message too. A connection that fails is thrown away with all it held.
"""

import select
import ssl
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from socket import IPPROTO_TCP, TCP_NODELAY, socket
from time import monotonic
from typing import Any

from msgspec import Struct
from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage, MQTTv5, error_string
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from models.contracts.errors import UnavailableError

_KEEPALIVE_S = 10
_IN_FLIGHT = 1000  # fewer where the broker says so; paho does not look
_LARGEST_PACKET = (1 << 28) + 4  # MQTT 5 section 2.1.4: what a packet's length can say
_TAKEN_BYTES = 2 << 20  # of a packet that the broker may send us
_LENGTH_BYTES = 3  # more of them before a long packet than before an empty one
_TURN_S = 0.1
_STRIKES = 5
_BREAKS = 2  # in a row, before a message is suspected: a broker that restarts breaks one connection

# MQTT 5 section 2.4. The second says something of one message; every other failure, of the broker or of us.
_NO_MATCHING_SUBSCRIBERS = 16
_PAYLOAD_FORMAT_INVALID = 153
_REMEDIES = {
    16: "nobody who would answer is connected to it",
    128: "see the broker's log",
    132: "it does not speak MQTT 5: upgrade it",
    133: "it does not accept the client id",
    134: "look at user name and password",
    135: "look at its access list and at our certificate",
    144: "set a topic it accepts",
    151: "it has given us all we may have",
}


class Broker(Struct, frozen=True, kw_only=True):
    """Which broker, and who we are there."""

    host: str
    port: int
    client_id: str  # no other client of the broker may have it: the two would throw each other out
    tls: ssl.SSLContext | None = None
    username: str = ""
    password: str = ""
    stall_s: float = 10.0  # without any acknowledgement, while some are due


class Incoming(Struct, frozen=True):
    """A message that the broker sent us."""

    topic: str
    payload: bytes
    correlation: bytes  # what its sender wants to find in the answer
    packet_id: int


@contextmanager
def translated(broker: Broker, meanwhile: str) -> Iterator[None]:
    """Raise what a connection raises as an UnavailableError; `meanwhile` says what becomes of what it was to do."""
    try:
        yield
    except (OSError, ValueError) as error:  # paho raises ValueError for what it cannot make a connection of
        raise UnavailableError(f"mqtt {broker.host}:{broker.port}: {_reason(error)}; {meanwhile}") from error


class Connection:
    """Open it once. Every method may raise an OSError, which ends it."""

    def __init__(
        self, broker: Broker, clock: Callable[[], float] = monotonic, *, heard: bool = False, takes: int | None = None
    ) -> None:
        """Prepare a connection.

        Args:
            broker: where to.
            clock: in seconds.
            heard: what we publish is for somebody; that nobody has subscribed to it is a failure.
            takes: so many messages the broker may send us before we have acknowledged one ourselves; None: each is
                acknowledged as it comes.
        """
        self._broker = broker
        self._clock = clock
        self._heard = heard
        self._takes = takes
        self._welcome: ReasonCode | None = None
        self._farewell: ReasonCode | None = None
        self._subscribed: list[ReasonCode] | None = None
        self._unsubscribed = False
        self._room = _IN_FLIGHT
        self._most_bytes = _LARGEST_PACKET
        self._due: dict[int, tuple[int, str]] = {}  # packet id to position and topic
        self._failure: tuple[str, ReasonCode] | None = None
        self.refused: dict[int, str] = {}  # by position, why the broker does not take it
        self.incoming: deque[Incoming] = deque()
        client = Client(
            CallbackAPIVersion.VERSION2, client_id=broker.client_id, protocol=MQTTv5, manual_ack=takes is not None
        )
        client.max_inflight_messages_set(_IN_FLIGHT)
        client.connect_timeout = broker.stall_s
        if broker.tls is not None:
            client.tls_set_context(broker.tls)
        if broker.username:
            client.username_pw_set(broker.username, broker.password or None)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_unsubscribe = self._on_unsubscribe
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        self._client = client

    def open(self, filters: Sequence[str] = ()) -> None:
        """Connect without a session of ours at the broker, and subscribe."""
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho leaves it untyped
        if self._takes is not None:
            properties.ReceiveMaximum = self._takes
        properties.MaximumPacketSize = _TAKEN_BYTES
        broker = self._broker
        self._client.connect(broker.host, broker.port, keepalive=_KEEPALIVE_S, clean_start=True, properties=properties)
        connection = self._client.socket()
        if isinstance(connection, socket):  # else a small packet waits until the one before is acknowledged, some 40 ms
            connection.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        # A broker that refuses a certificate may say nothing at all.
        self._await(lambda: self._welcome is not None, "accepts the connection and does not answer; look at its log")
        if self._welcome is not None and self._welcome.is_failure:
            raise ConnectionRefusedError(f"refuses us: {_named(self._welcome)}")
        if not filters:
            return
        self._client.subscribe([(each, 1) for each in filters])
        self._await(lambda: self._subscribed is not None, "does not answer a subscription")
        for each, reason in zip(filters, self._subscribed or (), strict=False):
            if reason.is_failure:
                raise ConnectionRefusedError(f"refuses us `{each}`: {_named(reason)}")

    def unsubscribe(self, filters: Sequence[str]) -> None:
        """Have the broker send nothing more; what came meanwhile stands in `incoming`."""
        self._unsubscribed = False
        self._client.unsubscribe(list(filters))
        self._await(lambda: self._unsubscribed, "does not answer")

    @property
    def room(self) -> int:
        """How many messages may be due at once."""
        return self._room

    @property
    def due(self) -> list[int]:
        """The positions of what is published and not acknowledged."""
        return [position for position, _ in self._due.values()]

    def longest(self, topic: str, properties: Properties | None = None) -> int:
        """Return how long a payload the broker surely takes."""
        return self._most_bytes - _packet_bytes(topic, b"", properties) - _LENGTH_BYTES

    def too_large(self, topic: str, payload: bytes, properties: Properties | None = None) -> str:
        """Say why the broker would not take a message; nothing where it may."""
        size = _packet_bytes(topic, payload, properties)
        return (
            ""
            if size <= self._most_bytes
            else f"a packet of {size} bytes; the broker takes {self._most_bytes} at the most"
        )

    def send(
        self,
        topic: str,
        payload: bytes,
        position: int,
        *,
        properties: Properties | None = None,
        room: int | None = None,
    ) -> None:
        """Publish, when fewer than `room` messages are due; `position` is what the caller calls it."""
        self.let_due_sink_below(self._room if room is None else room)
        sent = self._client.publish(topic, payload, qos=1, properties=properties)
        self._due[sent.mid] = position, topic
        if sent.rc is not MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise ConnectionResetError(error_string(sent.rc))

    def acknowledge(self, message: Incoming) -> None:
        """Tell the broker that we have a message; in the order in which they came."""
        self._client.ack(message.packet_id, 1)

    def turn(self, timeout_s: float) -> bool:
        """Do what is to be done on the socket, after waiting for it no longer than that; return whether it was read."""
        connection = self._client.socket()
        if connection is None:
            raise ConnectionResetError(self._last_words())
        wants_to_write = [connection] if self._client.want_write() else []
        pending = isinstance(connection, ssl.SSLSocket) and connection.pending() > 0
        readable, writable, _ = select.select([connection], wants_to_write, [], 0 if pending else timeout_s)
        codes = [
            self._client.loop_read() if readable or pending else MQTTErrorCode.MQTT_ERR_SUCCESS,
            self._client.loop_write() if writable else MQTTErrorCode.MQTT_ERR_SUCCESS,
            self._client.loop_misc(),
        ]
        if any(code is not MQTTErrorCode.MQTT_ERR_SUCCESS for code in codes):
            raise ConnectionResetError(self._last_words())
        if self._failure is not None:
            topic, reason = self._failure
            raise ConnectionRefusedError(f"refuses what we publish to `{topic}`: {_named(reason)}")
        return bool(readable) or pending

    def let_due_sink_below(self, most: int) -> None:
        """Return when fewer than `most` messages are due."""
        moved_at, due = self._clock(), len(self._due)
        while len(self._due) >= most:
            self.turn(_TURN_S)
            if len(self._due) < due:
                moved_at, due = self._clock(), len(self._due)
            elif self._clock() - moved_at > self._broker.stall_s:
                raise TimeoutError(f"{due} messages not acknowledged for {self._broker.stall_s:g} s")

    def close(self) -> None:
        self._client.disconnect()

    def _await(self, true: Callable[[], bool], else_say: str) -> None:
        deadline = self._clock() + self._broker.stall_s
        while not true():
            self.turn(_TURN_S)
            if self._clock() > deadline:
                raise TimeoutError(else_say)

    def _last_words(self) -> str:
        return "closed the connection" if self._farewell is None else f"closed the connection: {_named(self._farewell)}"

    def _on_connect(
        self, _client: Client, _userdata: Any, _flags: ConnectFlags, reason: ReasonCode, properties: Properties | None
    ) -> None:
        self._welcome = reason
        self._room = min(_IN_FLIGHT, getattr(properties, "ReceiveMaximum", 65_535))
        self._most_bytes = getattr(properties, "MaximumPacketSize", _LARGEST_PACKET)

    def _on_disconnect(
        self,
        _client: Client,
        _userdata: Any,
        _flags: DisconnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        self._farewell = reason

    def _on_subscribe(
        self, _client: Client, _userdata: Any, _mid: int, reasons: list[ReasonCode], _properties: Properties | None
    ) -> None:
        self._subscribed = reasons

    def _on_unsubscribe(
        self, _client: Client, _userdata: Any, _mid: int, _reasons: list[ReasonCode], _properties: Properties | None
    ) -> None:
        self._unsubscribed = True

    def _on_publish(
        self, _client: Client, _userdata: Any, packet_id: int, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        position, topic = self._due.pop(packet_id, (None, ""))
        if position is None:
            return
        if reason.value == _PAYLOAD_FORMAT_INVALID:
            self.refused[position] = f"refused by the broker: {_named(reason)}"
        elif reason.is_failure or (self._heard and reason.value == _NO_MATCHING_SUBSCRIBERS):
            self._failure = topic, reason

    def _on_message(self, _client: Client, _userdata: Any, message: MQTTMessage) -> None:
        correlation = getattr(message.properties, "CorrelationData", b"")
        self.incoming.append(Incoming(message.topic, bytes(message.payload), correlation, message.mid))


class Suspects:
    """Finds the payload over which the connection breaks each time.

    Mosquitto, for one, answers a message over its `message_size_limit` with a packet that MQTT 5 does not know. So
    after some breaks in a row payloads go one at a time, and one that breaks the connection all by itself `_STRIKES`
    times in a row is refused.
    """

    def __init__(self) -> None:
        self._breaks = 0
        self._suspect = b""
        self._strikes = 0

    @property
    def one_by_one(self) -> bool:
        """Whether payloads are to go alone, each acknowledged before the next."""
        return self._breaks >= _BREAKS

    def reason_against(self, payload: bytes) -> str:
        """Say why a payload is not even to be tried; nothing where it is."""
        if payload == self._suspect and self._strikes >= _STRIKES:
            return f"the connection broke {_STRIKES} times when it alone was published"
        return ""

    def broke(self, due: Sequence[bytes]) -> None:
        """Learn that a connection broke while these were not acknowledged."""
        self._breaks += 1
        if self.one_by_one and len(due) == 1:
            self._strikes = self._strikes + 1 if due[0] == self._suspect else 1
            self._suspect = due[0]

    def went_well(self) -> None:
        """Learn that everything was delivered."""
        self._breaks, self._suspect, self._strikes = 0, b"", 0


def marks(*, correlation: bytes, expiry_s: int) -> Properties:
    """Return the properties of a message that is answered, or an answer, and of no use after `expiry_s`."""
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho leaves it untyped
    properties.CorrelationData = correlation
    properties.MessageExpiryInterval = expiry_s
    return properties


def _packet_bytes(topic: str, payload: bytes, properties: Properties | None) -> int:
    """Return the size of the PUBLISH packet: MQTT 5 section 3.3, QoS 1."""
    described = 1 if properties is None else len(properties.pack())  # type: ignore[no-untyped-call]
    rest = 2 + len(topic.encode()) + 2 + described + len(payload)
    length_bytes = 1 + (rest > 127) + (rest > 16_383) + (rest > 2_097_151)
    return 1 + length_bytes + rest


def _named(reason: ReasonCode) -> str:
    remedy = _REMEDIES.get(reason.value)
    return f"{reason} ({reason.value})" + (f"; {remedy}" if remedy else "")


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is refused: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or error}"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
