"""Answers of people in a real Kafka: in both topics, by the event's id, whatever became of the broker meanwhile."""

import signal
from pathlib import Path

from click.testing import CliRunner, Result

from central.local_kafka import LocalKafka
from central.queue.command import queue_group
from central.queue.desk import QueueSettings
from central.queue.publish import AnswersRelay
from central.queue.store import Store
from central.topics import Names, create, declared
from dataflows.backoff import Backoff
from dataflows.connectors.kafka import Cluster
from dataflows.connectors.kafka_publisher import KafkaCarrier, Publishing, id_of
from dataflows.running.commands import Commands
from models.contracts.verdict import PERSON
from models.contracts.wire import decode_answer, decode_verdict
from tests.checks.queue_store import NOW, put, waiting
from tests.faults.gateway import wait_until
from tests.real.kafka import Record, read_all


def test_every_answer_is_in_both_topics_although_the_broker_is_killed(
    kafka: LocalKafka, topic: str, tmp_path: Path
) -> None:
    cluster, names = Cluster(brokers=kafka.brokers), Names(topic[:100])
    create(cluster, [one for one in declared(names.prefix) if one.name in (names.answers, names.verdicts)])
    url = f"sqlite:///{tmp_path / 'queue.sqlite3'}"
    store = Store(url)
    put(store, *(waiting(id=f"o.{number}") for number in range(3)))

    assert answer(url, cluster, names, "o.0", "benign").stderr == ""
    assert answer(url, cluster, names, "o.0", "critical", "--correct").stderr == ""
    kafka.stop(signal.SIGKILL)
    said = answer(url, cluster, names, "o.1", "suspicious")
    assert (said.exit_code, said.stdout) == (0, "answered o.1: suspicious\n")
    assert "kept the answer, and could not publish it yet: kafka 127.0.0.1" in said.stderr
    assert store.counts(NOW).unpublished == 1
    kafka.start()
    relay = AnswersRelay(
        url,
        lambda: KafkaCarrier(Publishing(cluster=cluster, topic=names.answers, key_of=id_of)),
        lambda: KafkaCarrier(Publishing(cluster=cluster, topic=names.verdicts, key_of=id_of)),
        every_s=0.1,
        backoff=Backoff(first_s=0.2, most_s=1.0),
    )
    relay.start()
    wait_until(lambda: store.counts(NOW).unpublished == 0, lambda: "an answer is owed still", within_s=60)
    relay.close()
    store.close()

    answers = {key: decode_answer(value) for key, value in last(read_all(kafka, names.answers)).items()}
    verdicts = {key: decode_verdict(value) for key, value in last(read_all(kafka, names.verdicts)).items()}
    expected = {b"o.0": ("critical", PERSON + 1), b"o.1": ("suspicious", PERSON)}
    assert {key: (said.label, said.revision) for key, said in answers.items()} == expected
    assert {key: (said.label, said.revision) for key, said in verdicts.items()} == expected
    assert {said.route for said in verdicts.values()} == {"accepted"}


def answer(url: str, cluster: Cluster, names: Names, *arguments: str) -> Result:
    group = Commands("central")
    settings = QueueSettings(database=url, cluster=cluster, prefix=names.prefix)
    group.add_command(queue_group(lambda _path: settings))
    return CliRunner().invoke(group, ["queue", "answer", *arguments])


def last(records: list[Record]) -> dict[bytes | None, bytes]:
    """What compaction leaves: the last record of each key."""
    return {record.key: record.value for record in records}
