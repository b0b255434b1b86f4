"""A Kafka topic from its beginning to the ends that it has now: for what is read whole, and not as a stream."""

from collections.abc import Iterator
from time import monotonic
from typing import Any, cast

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from msgspec import Struct

from dataflows.connectors.kafka import Cluster, Complaints, reason
from models.contracts.errors import UnavailableError

_ASK_WITHIN_S = 10.0
_TURN_S = 0.2
_TOGETHER = 1000
_NO_GROUP = "headwater-reader"  # a client must name one; nothing is ever committed to it

Headers = tuple[tuple[str, bytes], ...]

_UNREADABLE = "headers-not-utf-8"


class Record(Struct, frozen=True, gc=False):
    """One record as it lies in its topic."""

    partition: int
    offset: int
    written_at_ms: int
    key: bytes | None
    value: bytes | None  # None takes back what was said of the key
    headers: Headers


def read_whole(cluster: Cluster, topic: str, stall_s: float = 30.0) -> Iterator[Record]:
    """Yield every record that is there now, each partition's in order; what comes meanwhile may be among them.

    Raises:
        UnavailableError: no broker answers, there is no such topic, or nothing comes for `stall_s`.
    """
    complaints = Complaints()
    settings: Any = cluster.settings(
        {
            "group.id": _NO_GROUP,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
    )
    consumer = Consumer({**settings, "error_cb": complaints})
    try:
        yield from _records(consumer, topic, stall_s)
    except KafkaException as error:
        consumer.poll(0)  # what went wrong is told there, and here perhaps only that it took too long
        raise UnavailableError(
            f"kafka {cluster.brokers}, topic {topic}: {reason(complaints.cause(error.args[0]))}"
        ) from error
    finally:
        consumer.close()


def _records(consumer: Consumer, topic: str, stall_s: float) -> Iterator[Record]:
    found = consumer.list_topics(topic, timeout=_ASK_WITHIN_S).topics[topic]
    if found.error is not None:
        raise KafkaException(found.error)
    left, moved_at = set(found.partitions), monotonic()
    consumer.assign([TopicPartition(topic, number, 0) for number in left])
    while left:
        messages = consumer.consume(_TOGETHER, timeout=_TURN_S)
        if messages:
            moved_at = monotonic()
        elif monotonic() - moved_at > stall_s:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))  # noqa: SLF001
        for message in messages:
            error = message.error()
            if error is None:
                yield _record(message)
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
                left.discard(cast("int", message.partition()))
            elif error.code() != KafkaError.GROUP_AUTHORIZATION_FAILED:  # we need none
                raise KafkaException(error)


def headers_of(message: Message) -> Headers:
    """Return the headers of a record, those that the library cannot read in words."""
    try:
        found = cast("list[tuple[str, bytes | None]] | None", message.headers())
    except SystemError:
        # A name that is not UTF-8: the library leaves a hole in its place, which nothing but `repr` may touch.
        return ((_UNREADABLE, repr(message.headers()).encode()),)
    return () if found is None else tuple((name, value or b"") for name, value in found)


def _record(message: Message) -> Record:
    return Record(
        cast("int", message.partition()),
        cast("int", message.offset()),
        message.timestamp()[1],
        message.key(),
        message.value(),
        headers_of(message),
    )
