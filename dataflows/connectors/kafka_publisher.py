"""Payloads to a topic of Kafka: delivered when all in-sync replicas have each one. An idempotent producer.

librdkafka holds what is on its way in memory and tells of each message by a callback. A batch is on the brokers when
all of its callbacks came; a producer that fails is thrown away with all it held, and the courier has that still.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any

import msgspec
from confluent_kafka import KafkaError, KafkaException, Producer
from msgspec import Struct

from dataflows.connectors.courier import Refusal
from dataflows.connectors.kafka import Cluster, reason
from models.contracts.errors import UnavailableError

_TURN_S = 0.1
_LINGER_MS = 5
_NO_TOPIC_MS = 2000  # until a topic that was perhaps just made is taken to be none
# These say something of one message; every other failure, of the brokers or of us.
_OF_THE_MESSAGE = frozenset((KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG, KafkaError.INVALID_RECORD))


class Publishing(Struct, frozen=True, kw_only=True):
    """Where to. A key decides on the partition, so that all that is said of one event stands in one, in order."""

    cluster: Cluster
    topic: str
    key_of: Callable[[bytes], bytes]
    stall_s: float = 10.0  # without any acknowledgement, while some are due


class _Identified(Struct):
    id: str


def id_of(payload: bytes) -> bytes:
    """Return the id of a verdict or a dead letter, as its key."""
    return msgspec.json.decode(payload, type=_Identified).id.encode("utf-8", "surrogatepass")


class KafkaCarrier:
    """One producer at a time."""

    def __init__(self, publishing: Publishing, clock: Callable[[], float] = monotonic) -> None:
        self._publishing = publishing
        self._clock = clock
        self._producer: Producer | None = None
        self._due = 0
        self._away: KafkaError | None = None
        self._failures: dict[int, KafkaError] = {}  # by position

    def deliver(self, payloads: Sequence[bytes]) -> Sequence[Refusal]:
        if not payloads:  # what was acknowledged is there to stay
            return ()
        try:
            # A broker that takes smaller messages than it said refuses all that came in one batch with a large one.
            return [
                Refusal(position, reason(alone))
                for position, _ in sorted(self._publish(payloads, range(len(payloads))).items())
                for alone in self._publish(payloads, [position]).values()
            ]
        except KafkaException as error:
            self.close()
            publishing = self._publishing
            raise UnavailableError(
                f"kafka {publishing.cluster.brokers}, topic {publishing.topic}: {reason(error.args[0])}; what is to be "
                "published waits"
            ) from error

    def close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.purge()
            with suppress(KafkaException):
                producer.poll(0)
        self._due, self._away = 0, None

    def _publish(self, payloads: Sequence[bytes], positions: Sequence[int]) -> dict[int, KafkaError]:
        """Publish what stands at these positions; return those that the brokers refuse for what they are.

        Raises:
            KafkaException: the others could not be published.
        """
        self._failures, self._away = {}, None
        producer = self._producer = self._producer or self._connect()
        topic, key_of = self._publishing.topic, self._publishing.key_of
        for position in positions:
            payload = payloads[position]
            told = partial(self._told, position)
            while True:
                try:
                    producer.produce(topic, payload, key_of(payload), on_delivery=told)
                except BufferError:
                    self._await(producer, self._due - 1)
                    continue
                except KafkaException as error:
                    told(error.args[0], None)
                    break
                self._due += 1
                break
        self._await(producer, 0)
        failure = next((error for error in self._failures.values() if error.code() not in _OF_THE_MESSAGE), None)
        if failure is not None:
            raise KafkaException(failure)
        return self._failures

    def _await(self, producer: Producer, most: int) -> None:
        """Wait until no more than `most` are due.

        Raises:
            KafkaException: no broker is there, or none acknowledges anything.
        """
        moved_at, due = self._clock(), self._due
        while self._due > most:
            producer.poll(_TURN_S)
            if self._due < due:
                moved_at, due = self._clock(), self._due
            elif self._away is not None:
                raise KafkaException(self._away)
            elif self._clock() - moved_at > self._publishing.stall_s:
                raise KafkaException(KafkaError(KafkaError._MSG_TIMED_OUT))  # noqa: SLF001

    def _connect(self) -> Producer:
        settings = self._publishing.cluster.settings(
            {
                "acks": "all",
                "enable.idempotence": True,
                "linger.ms": _LINGER_MS,
                "compression.type": "lz4",
                "topic.metadata.propagation.max.ms": _NO_TOPIC_MS,
                "message.timeout.ms": int(self._publishing.stall_s * 1000),
            }
        )
        return Producer({**settings, "error_cb": self._on_error})

    def _told(self, position: int, error: KafkaError | None, message: Any) -> None:
        if message is not None:
            self._due -= 1
        if error is not None:
            self._failures[position] = error

    def _on_error(self, error: KafkaError) -> None:
        # Others pass by themselves, or come back with a message.
        if error.fatal() or error.code() in (
            KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001
            KafkaError._AUTHENTICATION,  # noqa: SLF001
            KafkaError._SSL,  # noqa: SLF001
        ):
            self._away = error
