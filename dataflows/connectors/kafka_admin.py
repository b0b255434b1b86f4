"""What topics a Kafka cluster has, as they are; and topics made or grown, where somebody asks for it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # documented, and not in its `__all__`
    AdminClient,
    ConfigResource,
    ResourceType,
)
from confluent_kafka.cimpl import NewPartitions, NewTopic
from msgspec import Struct

from dataflows.connectors.kafka import Cluster, reason
from models.contracts.errors import ConfigError, UnavailableError

_WITHIN_S = 10.0

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
    """A topic as the cluster has it; `settings` are Kafka's own, those that nobody set included."""

    partitions: int
    replication: int
    settings: Mapping[str, str]


class Admin:
    """One connection to ask and to change by. Every wait in it is bounded."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._said: list[str] = []
        settings: Any = {**cluster.settings({}), "error_cb": lambda error: self._said.append(reason(error))}
        self._client = AdminClient(settings)

    def find(self, names: Sequence[str]) -> dict[str, Found | None]:
        """Return each topic of these names as it is; None for one that is not there.

        Raises:
            UnavailableError: no broker answers, or it does not let us look.
        """
        with self._asking("its topics"):
            there = self._client.list_topics(timeout=_WITHIN_S).topics
        present = [name for name in names if name in there and there[name].error is None]
        resources = {name: ConfigResource(ResourceType.TOPIC, name) for name in present}
        asked = self._client.describe_configs(list(resources.values()), request_timeout=_WITHIN_S) if present else {}
        found: dict[str, Found | None] = dict.fromkeys(names)
        for name, resource in resources.items():
            with self._asking(f"topic {name}"):
                settings = asked[resource].result(_WITHIN_S)
            partitions = list(there[name].partitions.values())
            found[name] = Found(
                partitions=len(partitions),
                replication=min(len(partition.replicas) for partition in partitions),
                settings={key: entry.value for key, entry in settings.items() if entry.value is not None},
            )
        return found

    def make(self, name: str, partitions: int, replication: int, settings: Mapping[str, str]) -> bool:
        """Make a topic; return whether it was made, and not by somebody else meanwhile.

        Raises:
            ConfigError: the cluster cannot have such a topic.
            UnavailableError: no broker answers, or it does not let us.
        """
        wanted = NewTopic(name, partitions, replication, config=dict(settings))
        with self._asking(f"topic {name}"):
            try:
                self._client.create_topics([wanted], request_timeout=_WITHIN_S)[name].result(_WITHIN_S)
            except KafkaException as error:
                if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
                    return False
                raise
        return True

    def grow(self, name: str, partitions: int) -> None:
        """Give a topic more partitions.

        Raises:
            ConfigError: the cluster cannot do that.
            UnavailableError: no broker answers, or it does not let us.
        """
        wanted = NewPartitions(name, partitions)
        with self._asking(f"topic {name}"):
            self._client.create_partitions([wanted], request_timeout=_WITHIN_S)[name].result(_WITHIN_S)

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
            raise UnavailableError(f"{where}: {self._said[-1] if self._said else reason(found)}") from error
        except TimeoutError as error:
            raise UnavailableError(f"{where}: no answer within {_WITHIN_S:g} s") from error
