"""Where a person answers: each answer is kept first, and then told to Kafka, if it is there."""

from time import time

import click
from msgspec import Struct

from central.queue.asking import Given
from central.queue.item import Item
from central.queue.publish import publish_answers
from central.queue.store import Store, Wanted
from central.topics import Names
from dataflows.connectors.kafka import Cluster
from dataflows.connectors.kafka_publisher import KafkaCarrier, Publishing, id_of
from models.contracts.answer import LONGEST_NOTE
from models.contracts.errors import UnavailableError


class QueueSettings(Struct, frozen=True, kw_only=True):
    """What the commands need of the configuration."""

    database: str  # URL
    cluster: Cluster | None = None  # that answers are published to; without one they stay with the queue
    prefix: str = "headwater"  # of the topics' names


class Publisher:
    """Answers, and tells Kafka; where that is away it says so once, and leaves it to whoever publishes next."""

    def __init__(self, settings: QueueSettings, store: Store) -> None:
        self._settings = settings
        self._store = store
        self._carriers: list[KafkaCarrier] = []
        self._away = settings.cluster is None

    def close(self) -> None:
        for carrier in self._carriers:
            carrier.close()

    def answer(self, item_id: str, by: str, label: str, *, note: str = "", correct: bool = False) -> None:
        """Keep an answer, and publish all that Kafka is owed.

        Raises:
            InputError: the label is none of the task's, or the note is too long.
            UnavailableError: it cannot be answered, or the database is away.
        """
        self._store.answer(item_id, by, label, now_ms(), note=note, correct=correct)
        if self._away:
            return
        try:
            answers, verdicts = self._connected()
            told = publish_answers(self._store, answers, verdicts, now_ms)
        except UnavailableError as error:
            self._away = True
            click.echo(f"headwater: kept the answer, and could not publish it yet: {error}", err=True)
        else:
            if told.refused:
                click.echo(f"headwater: Kafka refused {told.refused} answers for good; `queue show` says why", err=True)

    def _connected(self) -> list[KafkaCarrier]:
        cluster, names = self._settings.cluster, Names(self._settings.prefix)
        if not self._carriers and cluster is not None:
            topics = (names.answers, names.verdicts)
            self._carriers = [KafkaCarrier(Publishing(cluster=cluster, topic=one, key_of=id_of)) for one in topics]
        return self._carriers


class QueueDesk:
    """The queue as one person goes through it."""

    def __init__(self, store: Store, publisher: Publisher, wanted: Wanted, by: str, lease_ms: int) -> None:
        self._store, self._publisher, self._wanted, self._by, self._lease_ms = store, publisher, wanted, by, lease_ms
        self._skipped: set[str] = set()

    def take(self) -> Item | None:
        return self._store.claim_next(self._wanted, self._by, now_ms(), self._lease_ms, besides=self._skipped)

    def answer(self, item: Item, given: Given) -> None:
        self._publisher.answer(item.id, self._by, given.label, note=given.note[:LONGEST_NOTE])

    def put_back(self, item: Item) -> None:
        self._skipped.add(item.id)
        self._store.release(item.id, self._by, now_ms())


def now_ms() -> int:
    """Return the time by this machine's clock."""
    return int(time() * 1000)
