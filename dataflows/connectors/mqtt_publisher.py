"""Payloads to a topic of an MQTT 5 broker, QoS 1: delivered when the broker has acknowledged each one.

Paho's own queue and reconnection are not used: what it holds in memory is lost with the process, and its "published"
is true of a refused message too. A connection that fails is thrown away with all it held; the courier has it still.
"""

import select
import ssl
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

from msgspec import Struct
from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTv5, error_string
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from dataflows.connectors.courier import Refusal
from models.contracts.errors import ConfigError, UnavailableError

_KEEPALIVE_S = 10
_IN_FLIGHT = 1000  # fewer where the broker says so; paho does not look
_LARGEST_PACKET = (1 << 28) + 4  # MQTT 5 section 2.1.4: what a packet's length can say
_TURN_S = 0.1
_STRIKES = 5

# MQTT 5 section 2.4. This says something of one message; every other failure, of the broker or of us.
_PAYLOAD_FORMAT_INVALID = 153
_REMEDIES = {
    128: "see the broker's log",
    132: "it does not speak MQTT 5: upgrade it",
    133: "it does not accept the client id",
    134: "look at user name and password",
    135: "look at its access list and at our certificate",
    144: "set a topic it accepts",
    151: "it has given us all we may have",
}


class Publishing(Struct, frozen=True, kw_only=True):
    """Where to, and who we are there."""

    host: str
    port: int
    topic: str
    client_id: str  # no other client of the broker may have it: the two would throw each other out
    tls: ssl.SSLContext | None = None
    username: str = ""
    password: str = ""
    stall_s: float = 10.0  # without any acknowledgement, while some are due


def check_topic(where: str, topic: str) -> None:
    """Refuse what cannot be published to.

    Raises:
        ConfigError: the topic; `where` names its output.
    """
    if not topic or set(topic) & set("+#\0") or len(topic.encode()) > 65_535:
        raise ConfigError(
            f"{where}: `topic`: found `{topic}`; wanted a name without `+` and `#`, which are for filters"
        )


class MqttCarrier:
    """One connection at a time; it is served while something is delivered, and at each look in between.

    A message can be such that the connection breaks over it each time: mosquitto answers one over its
    `message_size_limit` with a packet that MQTT 5 does not know. So after a break the batch goes one message at a time,
    and one that breaks the connection all by itself `_STRIKES` times in a row is refused.
    """

    def __init__(self, publishing: Publishing, clock: Callable[[], float] = monotonic) -> None:
        check_topic(publishing.host, publishing.topic)
        self._publishing = publishing
        self._clock = clock
        self._connection: _Connection | None = None
        self._one_by_one = False
        self._suspect = b""
        self._strikes = 0

    def deliver(self, payloads: Sequence[bytes]) -> Sequence[Refusal]:
        if not payloads and self._connection is None:
            return ()
        try:
            connection = self._living() or self._connect()
            try:
                refusals = connection.publish(payloads, self._refused, one_by_one=self._one_by_one)
            except ConnectionResetError:
                self._suspect_of(connection, payloads)
                raise
        except (OSError, ValueError) as error:
            # Paho raises ValueError for what it cannot make a connection of.
            self.close()
            publishing = self._publishing
            raise UnavailableError(
                f"mqtt {publishing.host}:{publishing.port}: {_reason(error)}; what is to be published waits"
            ) from error
        if payloads:
            self._one_by_one, self._suspect, self._strikes = False, b"", 0
        return refusals

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _living(self) -> "_Connection | None":
        if self._connection is not None:
            try:
                self._connection.turn(0)  # what the broker said in the meantime: perhaps good-bye
            except ConnectionError:
                self.close()
        return self._connection

    def _connect(self) -> "_Connection":
        self._connection = _Connection(self._publishing, self._clock)
        self._connection.open()
        return self._connection

    def _refused(self, payload: bytes) -> str:
        if payload == self._suspect and self._strikes >= _STRIKES:
            return f"the connection broke {_STRIKES} times when it alone was published"
        return ""

    def _suspect_of(self, connection: "_Connection", payloads: Sequence[bytes]) -> None:
        self._one_by_one = True
        due = connection.due
        if len(due) == 1:
            payload = payloads[due[0]]
            self._strikes = self._strikes + 1 if payload == self._suspect else 1
            self._suspect = payload


class _Connection:
    def __init__(self, publishing: Publishing, clock: Callable[[], float]) -> None:
        self._publishing = publishing
        self._clock = clock
        self._welcome: ReasonCode | None = None
        self._farewell: ReasonCode | None = None
        self._room = _IN_FLIGHT
        self._most_bytes = _LARGEST_PACKET
        self._due: dict[int, int] = {}  # packet id to position
        self._refusals: list[Refusal] = []
        self._failure: ReasonCode | None = None
        client = Client(CallbackAPIVersion.VERSION2, client_id=publishing.client_id, protocol=MQTTv5)
        client.max_inflight_messages_set(_IN_FLIGHT)
        client.connect_timeout = publishing.stall_s
        if publishing.tls is not None:
            client.tls_set_context(publishing.tls)
        if publishing.username:
            client.username_pw_set(publishing.username, publishing.password or None)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        self._client = client

    def open(self) -> None:
        self._client.connect(self._publishing.host, self._publishing.port, keepalive=_KEEPALIVE_S, clean_start=True)
        deadline = self._clock() + self._publishing.stall_s
        while self._welcome is None:
            self.turn(_TURN_S)
            if self._clock() > deadline:
                # A broker that refuses a certificate may say nothing at all.
                raise TimeoutError("accepts the connection and does not answer; look at its log")
        if self._welcome.is_failure:
            raise ConnectionRefusedError(f"refuses us: {_named(self._welcome)}")

    @property
    def due(self) -> list[int]:
        """The positions of what is published and not acknowledged."""
        return list(self._due.values())

    def publish(self, payloads: Sequence[bytes], refused: Callable[[bytes], str], *, one_by_one: bool) -> list[Refusal]:
        """Return when each payload is acknowledged or refused; `refused` says why one is not even tried.

        Raises:
            ConnectionResetError: the connection broke.
            OSError: it is of no use.
        """
        self._refusals = []
        room = 1 if one_by_one else self._room
        for position, payload in enumerate(payloads):
            reason = refused(payload) or self._too_large(payload)
            if reason:
                self._refusals.append(Refusal(position, reason))
                continue
            self._let_due_sink_below(room)
            sent = self._client.publish(self._publishing.topic, payload, qos=1)
            self._due[sent.mid] = position
            if sent.rc is not MQTTErrorCode.MQTT_ERR_SUCCESS:
                raise ConnectionResetError(error_string(sent.rc))
        self._let_due_sink_below(1)
        return self._refusals

    def turn(self, timeout_s: float) -> None:
        """Do what is to be done on the socket, after waiting for it no longer than that.

        Raises:
            OSError: the connection is over.
        """
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
            raise ConnectionRefusedError(
                f"refuses what we publish to `{self._publishing.topic}`: {_named(self._failure)}"
            )

    def close(self) -> None:
        self._client.disconnect()

    def _let_due_sink_below(self, most: int) -> None:
        moved_at, due = self._clock(), len(self._due)
        while len(self._due) >= most:
            self.turn(_TURN_S)
            if len(self._due) < due:
                moved_at, due = self._clock(), len(self._due)
            elif self._clock() - moved_at > self._publishing.stall_s:
                raise TimeoutError(f"{due} messages not acknowledged for {self._publishing.stall_s:g} s")

    def _too_large(self, payload: bytes) -> str:
        size = _packet_bytes(self._publishing.topic, payload)
        if size <= self._most_bytes:
            return ""
        return f"a packet of {size} bytes; the broker takes {self._most_bytes} at the most"

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

    def _on_publish(
        self, _client: Client, _userdata: Any, packet_id: int, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        position = self._due.pop(packet_id, None)
        if position is None or not reason.is_failure:
            return
        if reason.value == _PAYLOAD_FORMAT_INVALID:
            self._refusals.append(Refusal(position, f"refused by the broker: {_named(reason)}"))
        else:
            self._failure = reason


def _packet_bytes(topic: str, payload: bytes) -> int:
    """Return the size of the PUBLISH packet: MQTT 5 section 3.3, QoS 1, without properties."""
    rest = 2 + len(topic.encode()) + 2 + 1 + len(payload)
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
