"""A Kafka topic as a Bytewax source: explicit partitions, offsets in the recovery store, and a policy for a gap.

The unit of work is a slot, and not a partition: slot `s` of `n` reads the partitions whose number leaves `s` when it
is divided by `n`. Bytewax asks for its parts once, when a flow starts; a slot looks for new partitions by itself, so
they are read without a restart. The number of slots belongs to the recovery store and stays what it is.

Where to go on is told by the recovery store alone, with the id of the topic: one that is made anew under the same name
begins at 0 again, and what is remembered of the old one says nothing of it. Offsets are committed to the group as well,
once an epoch is on disk, so that whoever watches the group's lag sees it; nothing is ever read from there.
"""

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from itertools import groupby
from threading import Event
from time import monotonic, time
from typing import Literal, cast

import structlog
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from confluent_kafka import (
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from msgspec import Struct

from dataflows.connectors.batch import Batch
from dataflows.connectors.kafka import Cluster, reason
from dataflows.connectors.kafka_reader import headers_of
from models.contracts.errors import ConfigError

_LONG_DUE = datetime(1970, 1, 1, tzinfo=UTC)  # always due: see `spool_source.py`
_IDLE_S = 0.005
_AWAY_S = 0.05
_ASK_WITHIN_S = 2.0  # a broker that does not answer holds the flow up so long, and then every `_RETRY_S`
_RETRY_S = 5.0
_DAY_MS = 24 * 3600 * 1000
_TAG_DIGITS = 6
_NO_ID = "A" * 22  # of a topic that has none: 128 bits of 0, as Kafka writes them
_LAST_MS = 253_402_300_799_999  # of the year 9999
_AHEAD_KB = 16 << 10  # read ahead in memory by each slot: a second of the fastest flow

log = structlog.get_logger()


class Position(Struct, frozen=True):
    """How far a slot has read, and of which topic."""

    topic_id: str  # empty where brokers tell none: before Kafka 2.8
    next: dict[int, int]  # partition to the offset of the next record


class Consuming(Struct, frozen=True, kw_only=True):
    """What is read, and from where on.

    `gone` is what to do where records were deleted before they were read, by retention or with their topic: go on at
    the `oldest` that is left, go on at the `newest`, or `stop`, which ends the flow until somebody decides.
    """

    cluster: Cluster
    topic: str
    group: str
    name: str  # of the source
    start: Literal["oldest", "newest"] = "oldest"  # of a partition that is there when the flow first starts
    gone: Literal["oldest", "newest", "stop"] = "stop"
    slots: int = 1
    process: int = 0  # our number in a cluster: we read the slots that leave it when they are divided by `processes`
    processes: int = 1
    batch_records: int = 500
    look_every_s: float = 10.0  # for new partitions


class KafkaSource(FixedPartitionedSource[Batch, Position]):
    """Reads a topic until `stop` is set or, with `drain`, until the ends that its partitions have at first."""

    def __init__(self, consuming: Consuming, stop: Event, *, drain: bool = False) -> None:
        """Describe the source; nothing is asked yet.

        Raises:
            ConfigError: a process of the cluster would have nothing to read.
        """
        if consuming.slots < consuming.processes:
            raise ConfigError(
                f"source {consuming.name}: found {consuming.slots} slots for {consuming.processes} processes, wanted "
                "at least one each; the number of slots belongs to the recovery store, so start fewer processes"
            )
        self._consuming = consuming
        self._stop = stop
        self._drain = drain

    def list_parts(self) -> list[str]:
        # Those of others are theirs to read: nothing that is read here crosses to another process.
        of = self._consuming
        # With other slots, other parts, which a store refuses: what one of four read is not what one of two is to read.
        return [f"slot-{number}-of-{of.slots}" for number in range(of.process, of.slots, of.processes)]

    def build_part(self, step_id: str, for_part: str, resume_state: Position | None) -> "KafkaSlot":  # noqa: ARG002
        slot = int(for_part.split("-")[1])
        return KafkaSlot(self._consuming, slot, resume_state, self._stop, drain=self._drain)


class KafkaSlot(StatefulSourcePartition[Batch, Position]):
    """One consumer, and the partitions of its slot."""

    def __init__(self, consuming: Consuming, slot: int, resume: Position | None, stop: Event, *, drain: bool) -> None:
        self._consuming = consuming
        self._slot = slot
        self._stop = stop
        self._drain = drain
        self._next = dict(resume.next) if resume else {}
        self._topic_id = resume.topic_id if resume else ""
        # Where partitions begin of which nothing was read; one that is added later is read whole.
        self._begins_at = "oldest" if resume else consuming.start
        self._assigned: set[int] = set()
        self._ended: set[int] = set()
        self._gaps: set[int] = set()  # partitions that librdkafka has let go, for what was wanted of them is gone
        self._committable: dict[int, int] | None = None
        self._look_at = 0.0
        self._said: set[int] = set()  # codes of what is wrong since the last record
        self._admin = AdminClient({**consuming.cluster.settings({}), "error_cb": self._on_error})  # type: ignore[dict-item]
        self._consumer = Consumer(
            {
                **consuming.cluster.settings(
                    {
                        "group.id": consuming.group,
                        "enable.auto.commit": False,
                        "enable.auto.offset.store": False,
                        "auto.offset.reset": "error",
                        "isolation.level": "read_committed",
                        "enable.partition.eof": True,
                        "fetch.wait.max.ms": 50,
                        "queued.max.messages.kbytes": _AHEAD_KB,
                    }
                ),
                "error_cb": self._on_error,
            }
        )

    def next_batch(self) -> list[Batch]:
        # The first call after a snapshot comes when its epoch is on disk.
        if self._committable:
            self._commit(self._committable)
        self._committable = None
        if self._stop.is_set():
            raise StopIteration
        if monotonic() >= self._look_at:
            self._look_at = monotonic() + (self._consuming.look_every_s if self._look() else _RETRY_S)
        if self._gaps:
            self._cross_gaps()
        if not self._assigned:
            self._consumer.poll(0)  # for what librdkafka says of it; no record can come by this
            self._stop.wait(_AWAY_S)
            return []
        batches = self._batches(self._consumer.consume(self._consuming.batch_records, timeout=_IDLE_S))
        if not batches and self._drain and self._ended >= self._assigned:
            raise StopIteration
        return batches

    def next_awake(self) -> datetime:
        return _LONG_DUE

    def snapshot(self) -> Position:
        self._committable = dict(self._next)
        return Position(self._topic_id, dict(self._next))

    def close(self) -> None:
        self._consumer.close()

    def _batches(self, messages: Sequence[Message]) -> list[Batch]:
        by_partition: dict[int, list[Message]] = defaultdict(list)
        for message in messages:
            error, partition = message.error(), cast("int", message.partition())
            if error is None:
                by_partition[partition].append(message)
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
                self._ended.add(partition)
            elif error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):  # noqa: SLF001
                self._gaps.add(partition)
            else:
                self._on_error(error)
        # A batch has one moment. What keeps records by the day must find the same one for a record that is read again.
        return [
            self._batch(partition, list(together))
            for partition, found in by_partition.items()
            for _, together in groupby(found, lambda message: _written_at_ms(message) // _DAY_MS)
        ]

    def _batch(self, partition: int, messages: Sequence[Message]) -> Batch:
        self._said.clear()
        topic, offsets = self._consuming.topic, [message.offset() for message in messages]
        self._next[partition] = cast("int", offsets[-1]) + 1
        keys = [message.key() for message in messages]
        headers = [headers_of(message) for message in messages]
        return Batch(
            source=self._consuming.name,
            received_at_ms=_written_at_ms(messages[0]),
            records=[message.value() or b"" for message in messages],
            ids=[f"{topic}.{self._tag}{partition}.{offset}" for offset in offsets],
            topics=[topic] * len(messages),
            keys=keys if any(key is not None for key in keys) else [],
            headers=headers if any(headers) else [],
        )

    def _look(self) -> bool:
        """Take on the partitions of this slot that it does not read yet; return whether the brokers answered.

        Raises:
            ConfigError: the topic was made anew, and the operator wants to decide.
        """
        topic = self._consuming.topic
        try:
            topic_id = self._id_now()
            if is_another(self._topic_id, topic_id):
                self._forget_the_old(topic_id)
            self._topic_id = topic_id or self._topic_id
            mine = {number for number in self._partitions() if number % self._consuming.slots == self._slot}
            new = {number: self._begin(number) for number in sorted(mine - self._assigned)}
        except KafkaException as error:
            self._on_error(error.args[0])
            return False
        if new:
            self._consumer.incremental_assign([TopicPartition(topic, number, at) for number, at in new.items()])
            self._next |= new
            self._assigned |= new.keys()
            log.info("kafka_partitions_taken", topic=topic, slot=self._slot, offsets=new)
        self._begins_at = "oldest"
        return True

    def _partitions(self) -> list[int]:
        """Return the topic's partitions as they are now; the consumer, which has to know them, learns them by that.

        Raises:
            KafkaException: no broker answers, or there is no such topic.
        """
        topic = self._consuming.topic
        found = self._consumer.list_topics(topic, timeout=_ASK_WITHIN_S).topics[topic]
        if found.error is not None:
            raise KafkaException(found.error)
        return list(found.partitions)

    def _id_now(self) -> str:
        """Return the topic's id, or nothing where brokers tell none.

        Raises:
            KafkaException: no broker answers, or there is no such topic.
        """
        topic = self._consuming.topic
        asked = self._admin.describe_topics(TopicCollection([topic]), request_timeout=_ASK_WITHIN_S)
        found = str(asked[topic].result().topic_id or "")
        return "" if found == _NO_ID else found

    def _forget_the_old(self, topic_id: str) -> None:
        """Begin with a topic that was made anew as the operator wants it.

        Raises:
            ConfigError: he wants to decide each time.
        """
        topic, policy = self._consuming.topic, self._consuming.gone
        what = f"topic {topic} was made anew: {self._topic_id}, read to {self._next}, is {topic_id} now"
        if policy == "stop":
            raise ConfigError(f"{what}; set `gone` to `oldest` or `newest` to go on")
        log.error("kafka_topic_made_anew", reason=what, action=f"going on at the {policy}")
        if self._assigned:
            self._consumer.incremental_unassign([TopicPartition(topic, number) for number in self._assigned])
        for of_the_old in (self._assigned, self._ended, self._gaps, self._next):
            of_the_old.clear()
        self._begins_at = policy

    @property
    def _tag(self) -> str:
        """What tells the records of this topic from those of another that had its name."""
        return f"{sha256(self._topic_id.encode()).hexdigest()[:_TAG_DIGITS]}." if self._topic_id else ""

    def _begin(self, partition: int) -> int:
        """Return the offset to read a partition from: a number in any case, or a crash could skip what comes."""
        if partition in self._next:
            return self._next[partition]
        low, high = self._span(partition)
        return high if self._begins_at == "newest" else low

    def _span(self, partition: int) -> tuple[int, int]:
        where = TopicPartition(self._consuming.topic, partition)
        low, high = self._consumer.get_watermark_offsets(where, timeout=_ASK_WITHIN_S, cached=False)
        return low, high

    def _cross_gaps(self) -> None:
        try:
            for partition in sorted(self._gaps):
                self._cross_gap(partition)
                self._gaps.discard(partition)
        except KafkaException as error:  # no broker said what is left; asked again at the next batch
            self._on_error(error.args[0])

    def _cross_gap(self, partition: int) -> None:
        """Go on behind records that are gone, as the operator wants it.

        Raises:
            ConfigError: he wants to decide each time.
            KafkaException: no broker says what is left.
        """
        wanted, policy = self._next[partition], self._consuming.gone
        low, high = self._span(partition)
        found = wanted
        if not low <= wanted <= high:  # or they are there after all: a broker that crashed may forget what was deleted
            where = f"topic {self._consuming.topic}, partition {partition}"
            what = f"{where}: offset {wanted} is not there, {low} to {high} are"
            if policy == "stop":
                raise ConfigError(f"{what}; set `gone` to `oldest` or `newest` to go on")
            found = low if policy == "oldest" else high
            log.error("kafka_records_gone", reason=what, action=f"going on at {found}", lost=max(0, low - wanted))
        self._next[partition] = found
        # Not by a seek: librdkafka has let the partition go.
        place = TopicPartition(self._consuming.topic, partition, found)
        self._consumer.incremental_unassign([place])
        self._consumer.incremental_assign([place])

    def _commit(self, offsets: dict[int, int]) -> None:
        at = [TopicPartition(self._consuming.topic, number, offset) for number, offset in offsets.items()]
        try:
            self._consumer.commit(offsets=at, asynchronous=True)
        except KafkaException as error:
            self._on_error(error.args[0])

    def _on_error(self, error: KafkaError) -> None:
        """Say once what is wrong; librdkafka tries again by itself."""
        if error.code() not in self._said:
            self._said.add(error.code())
            log.warning("kafka_unavailable", brokers=self._consuming.cluster.brokers, reason=reason(error))


def is_another(before: str, now: str) -> bool:
    """Tell whether a topic is not the one that it was; where brokers tell no id, before or now, nobody can know.

    Those of a cluster that is being upgraded may tell it one time and not the next.
    """
    return bool(before and now) and before != now


def _written_at_ms(message: Message) -> int:
    """Return when a record was written, by the clock of its writer or, where the topic says so, the broker's."""
    kind, at_ms = message.timestamp()
    return int(time() * 1000) if kind == TIMESTAMP_NOT_AVAILABLE else min(max(at_ms, 0), _LAST_MS)
