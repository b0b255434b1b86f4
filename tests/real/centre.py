"""A centre on a real Kafka: its configuration, its topics, and its flows as processes that a test may hurt."""

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from time import sleep, time

from confluent_kafka import Producer

from central import topics
from central.config import read_config
from central.local_kafka import LocalKafka
from central.queue.store import Store
from central.wiring import queue_url
from dataflows.connectors.kafka import Cluster
from dataflows.running.child import FlowChild, free_port
from models.contracts.event import DeadLetter
from models.contracts.incident import Incident
from models.contracts.verdict import Verdict
from models.contracts.wire import decode_dead_letter, decode_incident, decode_verdict, encode
from tests.real.kafka import read_all


class Centre:
    """One configuration in a directory of its own; `more` is TOML behind the rest."""

    def __init__(self, directory: Path, kafka: LocalKafka, prefix: str, more: str = "", partitions: int = 2) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.kafka = kafka
        self.names = topics.Names(prefix)
        self.config = directory / "central.toml"
        self._ports = {"triage": free_port(), "deliver": free_port()}
        self.config.write_text(
            f"""
[centre]
state_dir = "{directory}/state"
epoch_ms = 200
[kafka]
brokers = "{kafka.brokers}"
prefix = "{prefix}"
partitions = {partitions}
slots = 2
[engine]
kind = "release"
release = "soc-triage-small"
[triage]
operations = {{ port = {self._ports["triage"]} }}
[deliver]
operations = {{ port = {self._ports["deliver"]} }}
{more}
"""
        )
        topics.create(Cluster(brokers=kafka.brokers), topics.declared(prefix, partitions=partitions))

    def flow(self, name: str, arguments: Sequence[str] = ()) -> FlowChild:
        return FlowChild(
            f"central.{name}",
            self.config,
            self._ports[name],
            environment={"HEADWATER_CENTRAL": str(self.config)},
            arguments=arguments,
        )

    def cluster(self, name: str, processes: int) -> list[FlowChild]:
        """Return a flow as several processes of one cluster."""
        addresses = ";".join(f"127.0.0.1:{free_port()}" for _ in range(processes))
        return [
            FlowChild(
                f"central.{name}",
                self.config,
                self._ports[name] + process,
                log=self.config.with_name(f"{name}-{process}.log"),
                environment={"HEADWATER_CENTRAL": str(self.config)},
                arguments=["-i", str(process), "-a", addresses],
            )
            for process in range(processes)
        ]

    def produce(self, topic: str, verdicts: Sequence[Verdict]) -> None:
        self.produce_raw(topic, [encode(verdict) for verdict in verdicts], [verdict.id for verdict in verdicts])

    def produce_raw(self, topic: str, records: Sequence[bytes], keys: Sequence[str] = ()) -> None:
        producer = Producer({"bootstrap.servers": self.kafka.brokers, "log_level": 0})
        for record, key in zip_longest(records, keys):
            producer.produce(topic, record, key)
        assert producer.flush(30) == 0

    def letters(self) -> list[DeadLetter]:
        return [decode_dead_letter(record.value) for record in read_all(self.kafka, self.names.dead_letters)]

    def waiting(self) -> int:
        """Return how many items wait for a person; looked at now and then, for a look opens the database."""
        sleep(0.2)
        store = Store(queue_url(read_config(self.config)))
        try:
            return store.counts(int(time() * 1000)).waiting
        finally:
            store.close()

    def incidents(self) -> list[Incident]:
        """Return what was told of incidents, in order of revision."""
        found = [decode_incident(record.value) for record in read_all(self.kafka, self.names.incidents)]
        return sorted(found, key=lambda incident: incident.revision)

    def verdicts(self, topic: str) -> list[Verdict]:
        return [decode_verdict(record.value) for record in read_all(self.kafka, topic)]
