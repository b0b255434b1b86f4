"""Records to several topics of Kafka, of which readers see all or none: a producer with transactions."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from msgspec.structs import astuple

from dataflows.connectors.kafka import OF_THE_MESSAGE, Cluster, Complaints, reason
from dataflows.connectors.kafka_publisher import Outgoing
from models.contracts.errors import UnavailableError

_LARGEST_BYTES = 32 << 20  # how large a record may be is the topic's to say
_LEFT_OPEN_MS = 15_000  # a transaction of somebody who died: so long its readers wait for its end
_TAKEN_ALONG = (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT)  # noqa: SLF001


class Transactions:
    """Transactions under one name, one after the other; whoever takes up the name ends what others left open."""

    def __init__(self, cluster: Cluster, name: str, within_s: float = 30.0) -> None:
        self._cluster = cluster
        self._name = name
        self._within_s = within_s
        self._producer: Producer | None = None
        self._complaints = Complaints()
        self._failures: list[KafkaError] = []

    def take_up(self) -> None:
        """Take up the name: on return nobody who had it before publishes any more.

        Raises:
            UnavailableError: the brokers are away.
        """
        self._producer = self._connect()

    def publish(self, records: Sequence[Outgoing]) -> str:
        """Return when all records are there; or why none is, where the brokers will never take one of them.

        Then we have the name no more; it is taken up first, where we do not have it.

        Raises:
            UnavailableError: they are away, or somebody else took up the name; none of the records is there, or all
                are, if it was just the answer that did not come.
        """
        producer = self._producer = self._producer or self._connect()
        self._failures = []
        self._complaints.clear()
        try:
            producer.begin_transaction()
            try:
                for record in records:
                    topic, key, value, headers = astuple(record)
                    producer.produce(topic, value, key, on_delivery=self._told, headers=headers)
                producer.commit_transaction(self._within_s)
            except KafkaException as error:
                self._abandon(producer, error.args[0])
                raise
        except KafkaException as error:
            # The others were taken along by one that failed, and by our giving the transaction up.
            found = next((each for each in self._failures if each.code() not in _TAKEN_ALONG), error.args[0])
            if found.code() in OF_THE_MESSAGE:
                return reason(found)
            raise self._given_up(found) from error
        return ""

    def close(self) -> None:
        self._producer = None

    def _connect(self) -> Producer:
        settings: Any = self._cluster.settings(
            {
                "transactional.id": self._name,
                "transaction.timeout.ms": _LEFT_OPEN_MS,
                "compression.type": "lz4",
                "message.max.bytes": _LARGEST_BYTES,
                "message.timeout.ms": _LEFT_OPEN_MS,
                "delivery.report.only.error": True,
            }
        )
        self._complaints.clear()
        try:
            producer = Producer({**settings, "error_cb": self._complaints})
            try:
                producer.init_transactions(self._within_s)
            finally:
                producer.poll(0)  # for its complaints, which say why nobody answered
        except KafkaException as error:
            raise self._given_up(error.args[0]) from error
        return producer

    def _given_up(self, error: KafkaError) -> UnavailableError:
        why = reason(self._complaints.cause(error))
        return UnavailableError(f"kafka {self._cluster.brokers}, transactions {self._name}: {why}")

    def _abandon(self, producer: Producer, error: KafkaError) -> None:
        """Take back what was begun; where not even that works, whoever takes up the name next does it.

        The producer is thrown away: of one that failed the brokers may miss a number in its sequence.
        """
        self._producer = None
        if not error.fatal():
            with suppress(KafkaException):
                producer.abort_transaction(self._within_s)

    def _told(self, error: KafkaError | None, message: Message) -> None:  # noqa: ARG002 - as librdkafka calls it
        if error is not None:
            self._failures.append(error)
