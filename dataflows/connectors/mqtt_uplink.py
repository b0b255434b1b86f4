"""Verdicts to the centre by MQTT: delivered when a bridge has said that Kafka has them.

A broker's acknowledgement is not enough. It comes before its disk has the message, so that a broker that is killed
loses it; and a bridge that is away is nothing that a broker would wait for. What is not confirmed in time is sent
again, whole, so the far end gets it twice at times: ids and revisions tell.
"""

from collections.abc import Callable, Sequence
from math import ceil
from secrets import token_bytes
from time import monotonic

from paho.mqtt.properties import Properties

from dataflows.connectors.courier import Refusal
from dataflows.connectors.mqtt_connection import Broker, Connection, Suspects, marks, translated
from dataflows.connectors.uplink import LINE_BYTES, MESSAGE_BYTES, UPLINK, packed, topic_of

_TURN_S = 0.1
_ASK_S = 10.0  # how often a carrier that has nothing to deliver asks whether a bridge is there
_LEAST_BYTES = 16 << 10
_ID_BYTES = 12  # of an attempt; too many for two to be the same


class Upward(Broker, frozen=True, kw_only=True):
    """Where to, and who we are there."""

    root: str
    gateway: str


class UplinkCarrier:
    """One connection at a time; it hears what has arrived on its own topic, and listens before it publishes."""

    def __init__(self, uplink: Upward, clock: Callable[[], float] = monotonic) -> None:
        self._uplink = uplink
        self._clock = clock
        self._topic = topic_of(uplink.root, uplink.gateway, UPLINK.ask)
        self._received = topic_of(uplink.root, uplink.gateway, UPLINK.answer)
        self._connection: Connection | None = None
        self._suspects = Suspects()
        self._confirmed_at = -_ASK_S
        self._most_bytes = MESSAGE_BYTES  # that go together; fewer by a line so slow that they took too long

    def deliver(self, payloads: Sequence[bytes]) -> Sequence[Refusal]:
        with translated(self._uplink, "what is to be sent to the centre waits"):
            try:
                if not payloads and self._clock() - self._confirmed_at < _ASK_S:
                    if self._connection is not None:
                        self._connection.turn(0)
                    return ()
                refusals = self._carry(self._connection or self._connect(), payloads)
            except (OSError, ValueError) as error:
                if isinstance(error, TimeoutError):
                    self._most_bytes = max(_LEAST_BYTES, self._most_bytes // 2)
                self._confirmed_at = -_ASK_S
                self.close()
                raise
        self._confirmed_at = self._clock()
        self._most_bytes = min(MESSAGE_BYTES, self._most_bytes * 2)
        self._suspects.went_well()
        return refusals

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self) -> Connection:
        self._connection = Connection(self._uplink, self._clock, heard=True)
        self._connection.open([self._received])
        return self._connection

    def _carry(self, connection: Connection, payloads: Sequence[bytes]) -> list[Refusal]:
        """Send payloads, or an empty message where there are none, and wait until all of it is confirmed."""
        reasons = {position: why for position, payload in enumerate(payloads) if (why := self._against(payload))}
        left = [position for position in range(len(payloads)) if position not in reasons]
        one_by_one = self._suspects.one_by_one
        most = (
            0 if one_by_one else min(self._most_bytes, connection.longest(self._topic, self._marks(bytes(_ID_BYTES))))
        )
        stretches = list(packed([len(payloads[position]) for position in left], most))
        unconfirmed: dict[bytes, range] = {}
        try:
            for stretch in stretches or [range(0)]:
                attempt = token_bytes(_ID_BYTES)
                message = b"\n".join(payloads[left[each]] for each in stretch)
                properties = self._marks(attempt)
                why = connection.too_large(self._topic, message, properties)
                if why and len(stretch) == 1:
                    reasons[left[stretch[0]]] = why
                    continue
                unconfirmed[attempt] = stretch
                connection.send(
                    self._topic, message, stretch.start, properties=properties, room=1 if one_by_one else None
                )
            self._await(connection, unconfirmed)
        except ConnectionResetError:
            due = [stretch for stretch in stretches if stretch.start in connection.due]
            self._suspects.broke([payloads[left[each]] for stretch in due for each in stretch])
            raise
        return [Refusal(position, why) for position, why in sorted(reasons.items())]

    def _marks(self, attempt: bytes) -> Properties:
        # By then it is sent again; a broker whose bridge hangs is not to fill up with what nobody waits for.
        return marks(correlation=attempt, expiry_s=ceil(self._uplink.stall_s))

    def _against(self, payload: bytes) -> str:
        """Say why the centre will never take a payload; nothing where it may."""
        if len(payload) > LINE_BYTES:
            return f"{len(payload)} bytes; the centre takes {LINE_BYTES} at the most"
        return self._suspects.reason_against(payload)

    def _await(self, connection: Connection, unconfirmed: dict[bytes, range]) -> None:
        moved_at = self._clock()
        while True:
            while connection.incoming:
                if unconfirmed.pop(connection.incoming.popleft().correlation, None) is not None:
                    moved_at = self._clock()
            if not unconfirmed:
                return
            if self._clock() - moved_at > self._uplink.stall_s:
                raise TimeoutError(f"no bridge has confirmed anything for {self._uplink.stall_s:g} s; look at its log")
            connection.turn(_TURN_S)
