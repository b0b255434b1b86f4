"""MQTT 5 topics into the group commit: a persistent session, and no acknowledgement before the disk has the message.

The broker repeats what it has no acknowledgement for. Which packets are on disk is therefore written with them, and a
repeat of one of those is acknowledged and counted, not stored again. Half as many are remembered as there are packet
ids: a broker that counts through the ids and begins anew does not meet one that we still remember. To remember only
`receive_maximum` would not do: mosquitto 2.0.11 was seen with ten times as many unacknowledged.

What this cannot tell apart: a broker that hands out the lowest free packet id uses one again at once. Where it has sent
a new message under the id of one that is on disk, with the same topic and the same payload, and the connection or this
process ends before the new one has been stored, then the broker sends it again marked as a repeat, and it is taken for
the old one: acknowledged, counted under `messages-repeated` and not stored. Only messages that are the same byte for
byte can be lost so, and one that carries a time or a counter cannot. To store every repeat instead would store twice
whatever was unacknowledged at any interruption.
"""

import hashlib
import os
import ssl
import sys
import threading
import time
from collections.abc import Sequence
from itertools import combinations, zip_longest
from typing import Any

import msgspec
import structlog
from msgspec import Struct
from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from dataflows.connectors.group_commit import Delivery, GroupCommit, Refusal
from dataflows.connectors.spool import Arrival, Receipt
from models.contracts.errors import ConfigError

_KEEPALIVE_S = 30  # a broker that hangs is noticed within a minute
_BACKOFF_FIRST_S, _BACKOFF_MOST_S = 1, 60
_REMEMBERED = 32_768
_PACKET_MAX_BYTES = 1 << 20  # the broker does not send us what is larger, and MQTT has it tell nobody
_TOPIC_MAX_CHARACTERS = 1024
_ROOM_S = 0.5
_GOODBYE_S = 1.0
_QOS = 1
_ENDS = b"\r\n\0"

# MQTT 5 section 3.2.2.2, for those an operator can do something about.
_REFUSED = {
    "Unsupported protocol version": "the broker does not speak MQTT 5: upgrade it, or turn version 5 on",
    "Client identifier not valid": "the broker does not accept this client id: set `client_id`",
    "Bad user name or password": "set `username` and `password_file` to what the broker knows",
    "Not authorized": "look at `username`, `password_file`, our certificate, and the broker's access list",
    "Server unavailable": "the broker is up but not serving",
    "Server busy": "the broker has too many clients or too much to do",
    "Banned": "an administrator has banned this client",
    "Bad authentication method": "the broker wants another way to authenticate than user name or certificate",
    "Receive maximum exceeded": "set a smaller `receive_maximum`",
}

log = structlog.get_logger()


class MqttSource(Struct, frozen=True, kw_only=True):
    name: str
    host: str
    port: int
    topics: tuple[str, ...]
    client_id: str
    max_payload_bytes: int
    receive_maximum: int
    session_expiry_s: int
    tls: ssl.SSLContext | None = None
    username: str = ""
    password: str = ""


class Session(Struct, frozen=True, array_like=True):
    """Which of the broker's sessions the packet ids belong to; what a source remembers in the spool."""

    key: bytes
    filters: tuple[str, ...] = ()  # all that the broker may still send us something for


class MqttSubscriber:
    """One connection to one broker; paho's thread reads, the committing thread acknowledges."""

    def __init__(
        self, source: MqttSource, commit: GroupCommit, mark: bytes | None, receipts: Sequence[Receipt]
    ) -> None:
        """Prepare to go on with the session that an earlier process left in the spool."""
        self._source = source
        self._commit = commit
        self._guard = threading.Lock()  # around the six below: two threads know them
        self._session = Session(os.urandom(8)) if mark is None else msgspec.msgpack.decode(mark, type=Session)
        self._mark = msgspec.msgpack.encode(self._session)
        self._session_number = 0
        self._number = max((receipt.number for receipt in receipts), default=-1) + 1
        self._stored = {
            receipt.packet_id: receipt.digest
            for receipt in sorted(receipts, key=lambda receipt: receipt.number)
            if receipt.number >= self._number - _REMEMBERED
        }
        self._waiting: dict[int, bytes] = {}  # handed over and not on disk yet
        self._stopping = threading.Event()
        self._disconnected = threading.Event()
        self._problem = ""
        self._client = self._build_client()

    def start(self) -> None:
        """Connect, and again whenever the connection is lost; a broker that is away is not an error."""
        self._client.connect_async(
            self._source.host,
            self._source.port,
            keepalive=_KEEPALIVE_S,
            clean_start=False,
            properties=_connect_properties(self._source),
        )
        self._client.loop_start()

    def stop(self) -> None:
        """Take no more messages; the broker keeps them."""
        self._stopping.set()

    def close(self) -> None:
        """Disconnect, after what is on disk has been acknowledged; paho's thread ends by itself."""
        connected = self._client.is_connected()
        self._client.disconnect()
        if connected:  # else it may sit in a connect that takes seconds to fail
            self._disconnected.wait(_GOODBYE_S)

    def _build_client(self) -> Client:
        client = Client(CallbackAPIVersion.VERSION2, client_id=self._source.client_id, protocol=MQTTv5, manual_ack=True)
        if self._source.tls is not None:
            client.tls_set_context(self._source.tls)
        if self._source.username:
            client.username_pw_set(self._source.username, self._source.password or None)
        client.reconnect_delay_set(_BACKOFF_FIRST_S, _BACKOFF_MOST_S)
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_unsubscribe = self._on_unsubscribe
        client.on_message = self._on_message
        return client

    def _on_connect(
        self, client: Client, _userdata: Any, flags: ConnectFlags, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        if reason.is_failure:
            self._commit.happened(self._source.name, "connects-refused")
            self._tell("broker_refuses", f"{reason}: {_REFUSED.get(str(reason), 'see the log of the broker')}")
            return
        topics = self._source.topics
        if flags.session_present:
            gone = tuple(topic for topic in self._session.filters if topic not in topics)
            self._remember(Session(self._session.key, topics + gone))
        else:
            # Its packet ids begin anew, so what we know of the old ones says nothing about them.
            gone = ()
            with self._guard:
                self._session_number += 1
                self._stored.clear()
                self._waiting.clear()
            self._remember(Session(os.urandom(8), topics))
        # A session that the broker kept has its subscriptions; retained messages come only with a new one.
        options = SubscribeOptions(qos=_QOS, retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB)
        client.subscribe([(topic, options) for topic in topics])
        if gone:  # after that: what both an old and a new filter want may come twice now, but it comes
            client.unsubscribe(list(gone))
        self._problem = ""
        log.info("broker_connected", source=self._source.name, session_kept=flags.session_present)

    def _remember(self, session: Session) -> None:
        """Have the session on disk before its first message is: a repeat is told by it after a kill."""
        if session == self._session:
            return
        with self._guard:
            self._session = session
            self._mark = msgspec.msgpack.encode(session)
        arrival = Arrival(self._source.name, time.time_ns() // 1_000_000, [])
        self._commit.offer(Delivery(arrival, Refusal.REPEAT, mark=self._mark))

    def _on_connect_fail(self, _client: Client, _userdata: Any) -> None:
        # Paho calls this while it handles the exception, and hands on nothing of it.
        error = sys.exc_info()[1]
        self._commit.happened(self._source.name, "connects-failed")
        self._tell("broker_unreachable", _in_words(error))

    def _on_disconnect(
        self,
        _client: Client,
        _userdata: Any,
        flags: DisconnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        if self._stopping.is_set():
            self._disconnected.set()
            return
        self._commit.happened(self._source.name, "disconnects")
        said = str(reason)
        if self._source.tls is not None and not flags.is_disconnect_packet_from_server:
            said += (
                "; where this repeats, the broker does not accept our certificate: look at its authority and its dates"
            )
        self._tell("broker_disconnected", said)

    def _on_subscribe(
        self, _client: Client, _userdata: Any, _mid: int, reasons: list[ReasonCode], _properties: Properties | None
    ) -> None:
        for topic, reason in zip(self._source.topics, reasons, strict=False):
            if reason.is_failure:
                self._commit.happened(self._source.name, "subscriptions-refused")
                log.error("subscription_refused", source=self._source.name, topic=topic, reason=str(reason))
        log.info("broker_subscribed", source=self._source.name, topics=sum(not reason.is_failure for reason in reasons))

    def _on_unsubscribe(
        self, _client: Client, _userdata: Any, _mid: int, reasons: list[ReasonCode], _properties: Properties | None
    ) -> None:
        if any(reason.is_failure for reason in reasons):
            log.error("unsubscription_refused", source=self._source.name, reason=", ".join(map(str, reasons)))
            return  # tried again at the next connect
        self._remember(Session(self._session.key, self._source.topics))

    def _on_message(self, client: Client, _userdata: Any, message: MQTTMessage) -> None:
        if self._stopping.is_set():
            return  # not acknowledged: it comes again
        packet_id = message.mid if message.qos else 0
        digest = b""
        if packet_id:
            digest = self._digest(message)
            with self._guard:
                if message.dup and self._waiting.get(packet_id) == digest:
                    return  # acknowledged as soon as it is on disk
                known = message.dup and self._stored.get(packet_id) == digest
                if not known:
                    self._waiting[packet_id] = digest
            if known:
                self._commit.happened(self._source.name, "messages-repeated")
                client.ack(packet_id, message.qos)
                return
        record = _record(bytes(message.payload), self._source.max_payload_bytes)
        if not record:
            self._commit.happened(self._source.name, "messages-empty")
        full = self._commit.offer(self._delivery(message, packet_id, digest, record))
        while full and not self._stopping.is_set():
            # The broker waits too, for our acknowledgements and then for our reading.
            full = not self._commit.wait_for_room(self._source.name, _ROOM_S)

    def _delivery(self, message: MQTTMessage, packet_id: int, digest: bytes, record: bytes) -> Delivery:
        records, topics = ([record], [_short(message.topic)]) if record else ([], [])
        arrival = Arrival(self._source.name, time.time_ns() // 1_000_000, records, topics=topics)
        if not packet_id:
            return Delivery(arrival, Refusal.HOLD)
        with self._guard:
            number, mark, session_number = self._number, self._mark, self._session_number
            self._number += 1

        def stored() -> None:
            with self._guard:
                if session_number != self._session_number:
                    return  # another message may have this packet id now
                self._waiting.pop(packet_id, None)
                self._stored.pop(packet_id, None)
                self._stored[packet_id] = digest
                while len(self._stored) > _REMEMBERED:
                    del self._stored[next(iter(self._stored))]
            self._client.ack(packet_id, message.qos)

        return Delivery(
            arrival,
            Refusal.REPEAT,
            stored,
            mark=mark,
            receipts=(Receipt(number % _REMEMBERED, number, packet_id, digest),),
        )

    def _digest(self, message: MQTTMessage) -> bytes:
        with self._guard:
            key = self._session.key
        digest = hashlib.blake2b(message.topic.encode(), digest_size=8, key=key)
        digest.update(b"\0")
        digest.update(message.payload)
        return digest.digest()

    def _tell(self, event: str, problem: str) -> None:
        """One line for each new problem; the same one again is in the counters."""
        if problem != self._problem:
            broker = f"{self._source.host}:{self._source.port}"
            log.warning(event, source=self._source.name, broker=broker, reason=problem, action="trying again")
        self._problem = problem


def check_topics(where: str, topics: Sequence[str]) -> None:
    """Refuse filters that MQTT does not know, and those that overlap: MQTT 5 delivers a message once for each.

    Raises:
        ConfigError: the filters; `where` names their source.
    """
    for topic in topics:
        levels = _levels(topic)
        misplaced = any(len(level) > 1 and ("#" in level or "+" in level) for level in levels)
        if not topic or misplaced or "#" in levels[:-1]:
            raise ConfigError(
                f"{where}: `topics`: found `{topic}`; `+` stands for a whole level, `#` at the end for all that follow"
            )
    for one, other in combinations(topics, 2):
        if _overlap(one, other):
            raise ConfigError(
                f"{where}: `topics`: `{one}` and `{other}` overlap, so that the broker would send some messages twice; "
                "leave the narrower one out, or choose filters that exclude each other"
            )


def _overlap(one: str, other: str) -> bool:
    ours, theirs = _levels(one), _levels(other)
    if (ours[0][:1] == "$") != (theirs[0][:1] == "$"):
        return False  # no wildcard matches a first level that begins with `$`
    for mine, yours in zip_longest(ours, theirs):
        if "#" in (mine, yours):
            return True
        if mine is None or yours is None or (mine != yours and "+" not in (mine, yours)):
            return False
    return True


def _levels(topic: str) -> list[str]:
    levels = topic.split("/")
    return levels[2:] if levels[0] == "$share" and len(levels) > 2 else levels  # `$share/group/`


def _connect_properties(source: MqttSource) -> Properties:
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho leaves it untyped
    properties.SessionExpiryInterval = source.session_expiry_s
    properties.ReceiveMaximum = source.receive_maximum
    properties.MaximumPacketSize = _PACKET_MAX_BYTES
    return properties


def _record(payload: bytes, max_bytes: int) -> bytes:
    return payload[: max_bytes + 1] if len(payload) > max_bytes else payload.rstrip(_ENDS)


def _short(topic: str) -> str:
    """Return a topic; MQTT lets a stranger's have 64 KiB, and it is kept with every event."""
    return topic if len(topic) <= _TOPIC_MAX_CHARACTERS else f"{topic[: _TOPIC_MAX_CHARACTERS - 1]}…"


def _in_words(error: BaseException | None) -> str:
    match error:
        case ssl.SSLCertVerificationError():
            return (
                f"the broker's certificate is not trusted: {error.verify_message}; look at `tls.ca`, its dates, `host`"
            )
        case ssl.SSLError():
            return (
                f"TLS failed: {error.reason or error}; does the broker listen for TLS there, and like our certificate?"
            )
        case ConnectionRefusedError():
            return "connection refused: no broker listens there"
        case TimeoutError():
            return "no answer: the host is down, or a firewall drops what we send"
        case _:
            return str(error)
