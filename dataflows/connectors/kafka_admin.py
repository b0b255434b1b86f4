"""What topics a Kafka cluster has, as they are; and topics made or grown, where somebody asks for it."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from time import monotonic, sleep
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # documented, and not in its `__all__`
    AdminClient,
    ConfigResource,
    ResourceType,
)
from confluent_kafka.cimpl import NewPartitions, NewTopic
from msgspec import Struct

from dataflows.connectors.kafka import Cluster, Complaints, reason
from models.contracts.errors import ConfigError, UnavailableError

_WITHIN_S = 10.0
_LOOK_EVERY_S = 0.05

# These say something of what was asked for, and every other error of the cluster or of us.
_OF_THE_WISH = frozenset(
    (
        KafkaError.INVALID_CONFIG,
        KafkaError.INVALID_PARTITIONS,
        KafkaError.INVALID_REPLICATION_FACTOR,
        KafkaError.POLICY_VIOLATION,
        KafkaError.TOPIC_EXCEPTION,
    )
)


class Found(Struct, frozen=True, kw_only=True):
    """A topic as the cluster has it."""

    partitions: int = 0
    replication: int = 0
    settings: Mapping[str, str] = {}  # Kafka's own, those that nobody set included
    unseen: str = ""  # why we are not let see its settings, or nothing of it


class Admin:
    """One connection to ask and to change by. Every wait in it is bounded."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._complaints = Complaints()
        settings: Any = {**cluster.settings({}), "error_cb": self._complaints}
        self._client = AdminClient(settings)

    def find(self, names: Sequence[str]) -> dict[str, Found | None]:
        """Return each topic of these names as it is; None for one that is not there.

        Raises:
            UnavailableError: no broker answers.
        """
        described = self._client.describe_topics(TopicCollection(list(names)), request_timeout=_WITHIN_S)
        return {name: self._found(name, described[name]) for name in names}

    def _found(self, name: str, described: "Future[Any]") -> Found | None:
        with self._asking(f"topic {name}"):
            try:
                partitions = described.result().partitions
            except KafkaException as error:
                match error.args[0].code():
                    case KafkaError.UNKNOWN_TOPIC_OR_PART:
                        return None
                    case KafkaError.TOPIC_AUTHORIZATION_FAILED:
                        return Found(unseen=reason(error.args[0]))
                raise
            settings, unseen = self._settings(name)
        replication = min(len(partition.replicas) for partition in partitions)
        return Found(partitions=len(partitions), replication=replication, settings=settings, unseen=unseen)

    def _settings(self, name: str) -> tuple[dict[str, str], str]:
        resource = ConfigResource(ResourceType.TOPIC, name)
        try:
            entries = self._client.describe_configs([resource], request_timeout=_WITHIN_S)[resource].result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_AUTHORIZATION_FAILED:
                raise
            return {}, reason(error.args[0])
        return {key: entry.value for key, entry in entries.items() if entry.value is not None}, ""

    def make(self, name: str, partitions: int, replication: int, settings: Mapping[str, str]) -> bool:
        """Make a topic; return whether it was made, and not by somebody else meanwhile.

        Raises:
            ConfigError: the cluster cannot have such a topic.
            UnavailableError: no broker answers, or it does not let us.
        """
        wanted = NewTopic(name, partitions, replication, config=dict(settings))
        with self._asking(f"topic {name}"):
            try:
                self._client.create_topics([wanted], request_timeout=_WITHIN_S)[name].result()
            except KafkaException as error:
                if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
                    return False
                raise
        self._await(name, partitions)
        return True

    def grow(self, name: str, partitions: int) -> None:
        """Give a topic more partitions.

        Raises:
            ConfigError: the cluster cannot do that.
            UnavailableError: no broker answers, or it does not let us.
        """
        wanted = NewPartitions(name, partitions)
        with self._asking(f"topic {name}"):
            self._client.create_partitions([wanted], request_timeout=_WITHIN_S)[name].result()
        self._await(name, partitions)

    def _await(self, name: str, partitions: int) -> None:
        """Wait until the brokers know what the controller has decided, or whoever asks next learns of the past."""
        deadline = monotonic() + _WITHIN_S
        while monotonic() < deadline:
            found = self.find([name])[name]
            if found is not None and (found.partitions >= partitions or found.unseen):
                return
            sleep(_LOOK_EVERY_S)

    @contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        where = f"kafka {self._cluster.brokers}, {what}"
        try:
            yield
        except KafkaException as error:
            found = error.args[0]
            if found.code() in _OF_THE_WISH:
                raise ConfigError(f"{where}: {reason(found)}") from error
            self._client.poll(0)  # what went wrong is told there, and here only that it took too long
            raise UnavailableError(f"{where}: {reason(self._complaints.cause(found))}") from error
