"""A gateway that produces to a real Kafka: what it accepted is there, whatever became of the broker meanwhile."""

import signal
from pathlib import Path

import pytest

from central.local_kafka import LocalKafka
from edge.config import KafkaOutput
from edge.kafka import knock_kafka
from models.contracts.errors import UnavailableError
from models.contracts.wire import decode_verdict
from tests.fakes.tiny_models import tiny_decoder
from tests.faults.gateway import Gateway, running, wait_until
from tests.real.kafka import read_all


def output(kafka: LocalKafka, topic: str) -> str:
    return f'[[outputs]]\nkind = "kafka"\nname = "centre"\nbrokers = "{kafka.brokers}"\ntopic = "{topic}"\n'


def test_every_verdict_reaches_kafka_although_its_broker_is_killed(
    kafka: LocalKafka, topic: str, tmp_path: Path
) -> None:
    kafka.make_topic(topic, partitions=2)
    lines = [f"event {number}" for number in range(60)]
    gateway = Gateway(tmp_path, tiny_decoder(tmp_path / "quick.gguf"), outputs=output(kafka, topic))
    with running(gateway):
        gateway.send(*lines[:20])
        gateway.await_answers(20)
        kafka.stop(signal.SIGKILL)
        gateway.send(*lines[20:40])
        gateway.await_answers(40)
        kafka.start()
        gateway.send(*lines[40:])
        gateway.await_answers(60)
        there = {record.key for record in read_all(kafka, topic)}
        wait_until(
            lambda: len({record.key for record in read_all(kafka, topic)}) == 60,
            lambda: f"{len(there)} of 60\n{gateway.process.log_tail()}",
            within_s=60,
        )
        assert gateway.process.stop()[0] == 0

    found = read_all(kafka, topic)
    assert {decode_verdict(record.value).text.removeprefix("<14>") for record in found} == set(lines)
    assert all(record.key == decode_verdict(record.value).id.encode() for record in found)


def test_a_check_says_whether_the_topic_is_there_and_a_broker_answers(kafka: LocalKafka, topic: str) -> None:
    wanted = KafkaOutput(name="centre", brokers=kafka.brokers, topic=topic)
    with pytest.raises(UnavailableError, match=r"UNKNOWN_TOPIC_OR_PART.*make the topic"):
        knock_kafka(wanted, "gw")
    kafka.make_topic(topic)
    knock_kafka(wanted, "gw")
    nobody = KafkaOutput(name="centre", brokers="127.0.0.1:9", topic=topic)
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:9, topic .*Connection refused"):
        knock_kafka(nobody, "gw")
