"""Payloads to a topic of an MQTT 5 broker, QoS 1: delivered when the broker has acknowledged each one."""

from collections.abc import Callable, Sequence
from time import monotonic

from dataflows.connectors.courier import Refusal
from dataflows.connectors.mqtt_connection import Broker, Connection, Suspects, translated
from models.contracts.errors import ConfigError


class Publishing(Broker, frozen=True, kw_only=True):
    """Where to, and who we are there."""

    topic: str


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
    """One connection at a time; it is served while something is delivered, and at each look in between."""

    def __init__(self, publishing: Publishing, clock: Callable[[], float] = monotonic) -> None:
        check_topic(publishing.host, publishing.topic)
        self._publishing = publishing
        self._clock = clock
        self._connection: Connection | None = None
        self._suspects = Suspects()

    def deliver(self, payloads: Sequence[bytes]) -> Sequence[Refusal]:
        if not payloads and self._connection is None:
            return ()
        with translated(self._publishing, "what is to be published waits"):
            try:
                connection = self._living() or self._connect()
                refusals = self._publish(connection, payloads)
            except (OSError, ValueError):
                self.close()
                raise
        if payloads:
            self._suspects.went_well()
        return refusals

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _publish(self, connection: Connection, payloads: Sequence[bytes]) -> list[Refusal]:
        topic = self._publishing.topic
        room = 1 if self._suspects.one_by_one else None
        refusals = []
        try:
            for position, payload in enumerate(payloads):
                reason = self._suspects.reason_against(payload) or connection.too_large(topic, payload)
                if reason:
                    refusals.append(Refusal(position, reason))
                else:
                    connection.send(topic, payload, position, room=room)
            connection.let_due_sink_below(1)
        except ConnectionResetError:
            self._suspects.broke([payloads[position] for position in connection.due])
            raise
        refused, connection.refused = connection.refused, {}
        return refusals + [Refusal(position, reason) for position, reason in refused.items()]

    def _living(self) -> Connection | None:
        if self._connection is not None:
            try:
                self._connection.turn(0)  # what the broker said in the meantime: perhaps good-bye
            except ConnectionError:
                self.close()
        return self._connection

    def _connect(self) -> Connection:
        self._connection = Connection(self._publishing, self._clock)
        self._connection.open()
        return self._connection
