"""Records to topics of Kafka: delivered when all in-sync replicas have each one. An idempotent producer.

librdkafka holds what is on its way in memory and tells of each message that fails by a callback. A batch is on the
brokers when nothing is on its way any more; a producer that fails is thrown away with all it held, and whoever gave it
that has it still.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import monotonic

import msgspec
from confluent_kafka import KafkaError, KafkaException, Message, Producer
from msgspec import Struct
from msgspec.structs import astuple

from dataflows.connectors.courier import Refusal
from dataflows.connectors.kafka import OF_THE_MESSAGE, Cluster, Complaints, reason
from models.contracts.errors import UnavailableError

_TURN_S = 0.1
_LOOK_WITHIN_S = 3.0
_LINGER_MS = 5
_NO_TOPIC_MS = 2000  # until a topic that was perhaps just made is taken to be none
_LARGEST_BYTES = 32 << 20


Headers = list[tuple[str, bytes]]
_Sent = tuple[str | None, bytes | None, bytes | None]  # topic, key and value


class Outgoing(Struct, frozen=True, gc=False):
    """A record and its topic. Its key decides on the partition, so that all with one key stand in one, in order."""

    topic: str
    key: bytes | None
    value: bytes
    headers: Headers = []


class KafkaProducer:
    """One producer of librdkafka's at a time. Used by one thread; does no I/O until its first delivery."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        stall_s: float,
        largest_bytes: int = _LARGEST_BYTES,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Prepare a producer.

        Args:
            cluster: where to.
            stall_s: how long to wait without any acknowledgement, while some are due.
            largest_bytes: what is larger is not even sent; how large a record may be is the topic's to say.
            clock: in seconds.
        """
        self._cluster = cluster
        self._stall_s = stall_s
        self._largest_bytes = largest_bytes
        self._clock = clock
        self._producer: Producer | None = None
        self._complaints = Complaints()
        self._away = False
        self._failed: list[tuple[_Sent, KafkaError]] = []

    def deliver(self, records: Sequence[Outgoing]) -> list[Refusal]:
        """Return when the brokers have every record, or will never take it.

        Raises:
            UnavailableError: they are away; perhaps they have some. Deliver the same records later.
        """
        try:
            # A broker that takes smaller messages than it said refuses all that came in one batch with a large one.
            return [
                Refusal(position, reason(alone))
                for position, _ in sorted(self._publish(records, range(len(records))).items())
                for alone in self._publish(records, [position]).values()
            ]
        except KafkaException as error:
            raise self._given_up({record.topic for record in records}, error) from error

    def look(self, topic: str) -> None:
        """Return when a broker answers; who has nothing to publish would not learn that they are away.

        Raises:
            UnavailableError: none does.
        """
        producer = self._producer = self._producer or self._connect()
        self._complaints.clear()
        try:
            producer.list_topics(topic, timeout=_LOOK_WITHIN_S)
        except KafkaException as error:
            raise self._given_up({topic}, error) from error

    def _given_up(self, topics: set[str], error: KafkaException) -> UnavailableError:
        self.close()
        why = reason(self._complaints.cause(error.args[0]))
        return UnavailableError(
            f"kafka {self._cluster.brokers}, topic {' and '.join(sorted(topics))}: {why}; what is to be published waits"
        )

    def close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.purge()
            with suppress(KafkaException):
                producer.poll(0)

    def _publish(self, records: Sequence[Outgoing], positions: Sequence[int]) -> dict[int, KafkaError]:
        """Publish what stands at these positions; return those that the brokers refuse for what they are.

        Raises:
            KafkaException: the others could not be published.
        """
        producer = self._producer = self._producer or self._connect()
        producer.poll(0)  # it may still have to tell of an outage that is over
        self._failed, self._away = [], False
        self._complaints.clear()
        told = self._told
        for position in positions:
            topic, key, value, headers = astuple(records[position])
            while True:
                try:
                    producer.produce(topic, value, key, on_delivery=told, headers=headers or None)
                except BufferError:
                    self._await(producer, len(producer) - 1)
                    continue
                except KafkaException as error:
                    self._failed.append(((topic, key, value), error.args[0]))
                break
        self._await(producer, 0)
        failure = next((error for _, error in self._failed if error.code() not in OF_THE_MESSAGE), None)
        if failure is not None:
            raise KafkaException(failure)
        return self._refused(records, positions) if self._failed else {}

    def _refused(self, records: Sequence[Outgoing], positions: Sequence[int]) -> dict[int, KafkaError]:
        """Return where the records stand that failed; of several that are the same it does not matter which."""
        places: dict[_Sent, list[int]] = defaultdict(list)
        for position in positions:
            record = records[position]
            places[record.topic, record.key, record.value].append(position)
        return {places[sent].pop(): error for sent, error in self._failed}

    def _await(self, producer: Producer, most: int) -> None:
        """Wait until no more than `most` are on their way.

        Raises:
            KafkaException: no broker is there, or none acknowledges anything.
        """
        moved_at, due = self._clock(), len(producer)
        while due > most:
            left = producer.flush(_TURN_S)  # and not `poll`, by which they would wait for more to come
            if left < due:
                moved_at, due = self._clock(), left
            elif self._away:
                raise KafkaException(KafkaError(KafkaError._ALL_BROKERS_DOWN))  # noqa: SLF001
            elif self._clock() - moved_at > self._stall_s:
                raise KafkaException(KafkaError(KafkaError._MSG_TIMED_OUT))  # noqa: SLF001

    def _connect(self) -> Producer:
        settings = self._cluster.settings(
            {
                "acks": "all",
                "enable.idempotence": True,
                "linger.ms": _LINGER_MS,
                "compression.type": "lz4",
                "message.max.bytes": self._largest_bytes,
                "topic.metadata.propagation.max.ms": _NO_TOPIC_MS,
                "message.timeout.ms": int(self._stall_s * 1000),
                "delivery.report.only.error": True,
            }
        )
        return Producer({**settings, "error_cb": self._on_error})

    def _told(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failed.append(((message.topic(), message.key(), message.value()), error))

    def _on_error(self, error: KafkaError) -> None:
        self._complaints(error)
        # Others pass by themselves, or come back with a message.
        if error.fatal() or error.code() in (
            KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001
            KafkaError._AUTHENTICATION,  # noqa: SLF001
            KafkaError._SSL,  # noqa: SLF001
        ):
            self._away = True


class Publishing(Struct, frozen=True, kw_only=True):
    """Where payloads go, and what the key and the headers of each are."""

    cluster: Cluster
    topic: str
    key_of: Callable[[bytes], bytes]
    headers_of: Callable[[bytes], Headers] | None = None
    stall_s: float = 10.0  # without any acknowledgement, while some are due


class _Identified(Struct):
    id: str


class _Buried(Struct):
    reason: str
    source: str
    gateway: str | None = None


_identified = msgspec.json.Decoder(_Identified)
_buried = msgspec.json.Decoder(_Buried)


def id_of(payload: bytes) -> bytes:
    """Return the id of a verdict or a dead letter, as its key."""
    return _identified.decode(payload).id.encode("utf-8", "surrogatepass")


def reason_of(payload: bytes) -> Headers:
    """Return what of a dead letter Kafka's own tools are to see, as headers."""
    letter = _buried.decode(payload)
    found = {"reason": letter.reason, "source": letter.source, "gateway": letter.gateway}
    return [(name, value.encode()) for name, value in found.items() if value is not None]


class KafkaCarrier:
    """Payloads to one topic."""

    def __init__(self, publishing: Publishing) -> None:
        self._publishing = publishing
        self._producer = KafkaProducer(publishing.cluster, stall_s=publishing.stall_s)

    def deliver(self, payloads: Sequence[bytes]) -> Sequence[Refusal]:
        if not payloads:  # what was acknowledged is there to stay
            return ()
        topic, key_of, headers_of = self._publishing.topic, self._publishing.key_of, self._publishing.headers_of
        return self._producer.deliver(
            [
                Outgoing(topic, key_of(payload), payload, headers_of(payload) if headers_of else [])
                for payload in payloads
            ]
        )

    def close(self) -> None:
        self._producer.close()
