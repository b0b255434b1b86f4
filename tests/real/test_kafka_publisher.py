"""Payloads to a real Kafka: each is there or refused, whatever the broker does meanwhile."""

import os
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import msgspec
import pytest

from central.local_kafka import LocalKafka
from dataflows.connectors.kafka import Cluster
from dataflows.connectors.kafka_publisher import KafkaCarrier, Publishing, id_of
from models.contracts.errors import UnavailableError
from tests.real.kafka import read_all

ABOVE_THE_CLIENTS_LIMIT = 1_500_000


def payloads(count: int, first: int = 0) -> list[bytes]:
    return [msgspec.json.encode({"id": f"event-{number}"}) for number in range(first, first + count)]


def noise(size: int) -> bytes:
    """A payload that no compression makes smaller."""
    return msgspec.json.encode({"id": "large", "noise": os.urandom(size // 2).hex()})


@contextmanager
def carrier(kafka: LocalKafka, topic: str) -> Iterator[KafkaCarrier]:
    publishing = Publishing(cluster=Cluster(brokers=kafka.brokers), topic=topic, key_of=id_of, stall_s=30.0)
    carrier = KafkaCarrier(publishing)
    yield carrier
    carrier.close()


def test_every_payload_is_in_the_topic_once_and_its_key_is_its_id(kafka: LocalKafka, topic: str) -> None:
    kafka.make_topic(topic, partitions=4)
    with carrier(kafka, topic) as to_topic:
        assert list(to_topic.deliver(payloads(3000))) == []
        assert list(to_topic.deliver([])) == []

    found = read_all(kafka, topic)
    assert Counter(record.value for record in found) == Counter(payloads(3000))
    assert all(record.key == id_of(record.value) for record in found)
    assert {record.partition for record in found} == {0, 1, 2, 3}


@pytest.mark.parametrize("size", [5_000, ABOVE_THE_CLIENTS_LIMIT])
def test_a_payload_that_is_too_large_is_refused_and_its_neighbours_are_not(
    kafka: LocalKafka, topic: str, size: int
) -> None:
    kafka.make_topic(topic, max_message_bytes="2000")
    batch = [*payloads(5), noise(size), *payloads(5, first=5)]
    with carrier(kafka, topic) as to_topic:
        (refusal,) = to_topic.deliver(batch)

    assert refusal.position == 5
    assert "MSG_SIZE_TOO_LARGE" in refusal.reason
    assert {record.value for record in read_all(kafka, topic)} == set(payloads(10))


def test_a_topic_that_is_not_there_is_an_outage_that_says_so(kafka: LocalKafka, topic: str) -> None:
    with carrier(kafka, topic) as to_topic:
        with pytest.raises(UnavailableError, match=f"topic {topic}.*make the topic"):
            to_topic.deliver(payloads(1))
        kafka.make_topic(topic)
        assert list(to_topic.deliver(payloads(1))) == []


def test_nothing_is_lost_while_the_broker_is_killed_and_comes_back(kafka: LocalKafka, topic: str) -> None:
    kafka.make_topic(topic)
    with carrier(kafka, topic) as to_topic:
        delivered(to_topic, payloads(100))
        kafka.stop(signal.SIGKILL)
        with pytest.raises(UnavailableError, match="what is to be published waits"):
            to_topic.deliver(payloads(100, first=100))
        kafka.start()
        delivered(to_topic, payloads(100, first=100))

    assert {record.value for record in read_all(kafka, topic)} == set(payloads(200))


def delivered(to_topic: KafkaCarrier, batch: Sequence[bytes]) -> None:
    """Deliver as the courier does: again, where the far end is away."""
    for _ in range(20):
        try:
            assert list(to_topic.deliver(batch)) == []
        except UnavailableError:
            continue
        return
    raise AssertionError("the broker does not take anything")
