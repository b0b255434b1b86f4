"""The bridge's end of an exchange: what all gateways ask, shared with other bridges, and the answers to it.

No session outlives the connection, and the broker keeps nothing for us: who gets no answer asks again, perhaps another
bridge. A bridge that is not connected is seen at once by whoever asks, since then nobody has subscribed.
"""

from collections.abc import Callable
from time import monotonic

from msgspec import Struct
from paho.mqtt.properties import Properties

from dataflows.connectors.mqtt_connection import Broker, Connection, Incoming, marks, translated
from dataflows.connectors.uplink import Exchange, gateway_of, shared_filter, topic_of

_ANSWER_EXPIRY_S = 30
_MOST_TAKEN = 1000


class Request(Struct, frozen=True):
    """What one gateway asks."""

    gateway: str
    message: Incoming
    longest: int = 1 << 28  # bytes of an answer that the broker surely takes; MQTT has no more


class Requests:
    """One connection; when it fails, make another."""

    def __init__(
        self,
        broker: Broker,
        root: str,
        exchange: Exchange,
        *,
        at_once: int | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Prepare a connection; with `at_once` the broker has no more requests on their way than that unanswered.

        They are then to be answered in the order in which they came.
        """
        self._broker = broker
        self._root = root
        self._exchange = exchange
        self._filter = shared_filter(root, exchange.ask)
        self._at_once = at_once
        self._connection = Connection(broker, clock, takes=at_once)
        self._meanwhile = "gateways keep what they have for us, and ask again"

    def open(self) -> None:
        """Connect and subscribe.

        Raises:
            UnavailableError: the broker does not let us.
        """
        with translated(self._broker, self._meanwhile):
            self._connection.open([self._filter])

    def take(self, within_s: float) -> list[Request]:
        """Return what has come; after so long, perhaps nothing.

        Raises:
            UnavailableError: the connection is over, and with it every request that is not answered.
        """
        connection = self._connection
        with translated(self._broker, self._meanwhile):
            connection.turn(0 if connection.incoming else within_s)
            while len(connection.incoming) < _MOST_TAKEN and connection.turn(0):
                pass
        return self._come()

    def answer(self, request: Request, payload: bytes = b"") -> None:
        """Answer, and let the broker send us another request for this one.

        Raises:
            UnavailableError: the connection is over.
        """
        topic, properties = self._addressed(request.gateway, request.message)
        with translated(self._broker, self._meanwhile):
            self._connection.send(topic, payload, request.message.packet_id, properties=properties)
            if self._at_once is not None:
                self._connection.acknowledge(request.message)

    def leave(self) -> list[Request]:
        """Take no more; return what had come by then. It can still be answered.

        Raises:
            UnavailableError: the connection is over.
        """
        with translated(self._broker, self._meanwhile):
            self._connection.unsubscribe([self._filter])
        return self._come()

    def close(self) -> None:
        """Disconnect; what was answered is with the broker, if it takes it within a moment."""
        self._connection.close()

    def settle(self) -> None:
        """Return when the broker has every answer.

        Raises:
            UnavailableError: the connection is over.
        """
        with translated(self._broker, self._meanwhile):
            self._connection.let_due_sink_below(1)

    def _come(self) -> list[Request]:
        incoming = self._connection.incoming
        found = []
        for message in incoming:
            gateway = gateway_of(message.topic)
            longest = self._connection.longest(*self._addressed(gateway, message))
            found.append(Request(gateway, message, longest))
        incoming.clear()
        return found

    def _addressed(self, gateway: str, message: Incoming) -> tuple[str, Properties]:
        """Return where an answer goes, and what it says besides."""
        topic = topic_of(self._root, gateway, self._exchange.answer)
        return topic, marks(correlation=message.correlation, expiry_s=_ANSWER_EXPIRY_S)
