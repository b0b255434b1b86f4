"""What stands in a topic of a real Kafka."""

from dataclasses import dataclass
from time import monotonic

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from central.local_kafka import LocalKafka

_WITHIN_S = 60.0


@dataclass(frozen=True)
class Record:
    partition: int
    offset: int
    key: bytes | None
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()


def read_all(kafka: LocalKafka, topic: str) -> list[Record]:
    """Read every partition from its beginning to the end that it has now, in order of offset."""
    consumer = Consumer(
        {
            "bootstrap.servers": kafka.brokers,
            "group.id": "tests",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "log_level": 0,
        }
    )
    partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
    consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
    found: list[Record] = []
    left, deadline = set(partitions), monotonic() + _WITHIN_S
    try:
        while left:
            assert monotonic() < deadline, f"partitions {left} of {topic} have no end"
            for message in consumer.consume(1000, timeout=0.5):
                error = message.error()
                if error is None:
                    headers = tuple(message.headers() or ())
                    place = message.partition(), message.offset()
                    found.append(Record(*place, message.key(), message.value() or b"", headers))
                elif error.code() == KafkaError._PARTITION_EOF:
                    left.discard(message.partition())
                else:
                    raise KafkaException(error)
    finally:
        consumer.close()
    return sorted(found, key=lambda record: (record.partition, record.offset))
