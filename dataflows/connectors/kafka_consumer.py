"""Records of a Kafka topic outside of a flow: shared by a group and committed to it, or from any offsets on."""

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import monotonic
from typing import Any, cast

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient
from msgspec import Struct

from dataflows.connectors.kafka import Cluster, Value, reason
from models.contracts.errors import UnavailableError

_MOST = 1000  # at a time
_ASK_WITHIN_S = 5.0
_LOOK_EVERY_S = 30.0  # for new partitions
_END_EVERY_S = 5.0
_AHEAD_KIB = 4096  # what librdkafka fetches ahead of us; more is lost at every change of place
_HELD_BYTES = 8 << 20
_NO_GROUP = "headwater-offsets"  # a client must name one; nothing is ever committed to it
_SESSION_MS = 10_000
_ASK_GROUP_EVERY_S = 10.0  # while nothing comes
_COMMITTED_WITHIN_S = 30.0
_OUTAGES = (KafkaError._ALL_BROKERS_DOWN, KafkaError._AUTHENTICATION, KafkaError._SSL)  # noqa: SLF001

log = structlog.get_logger()


class Taken(Struct, frozen=True, gc=False):
    """A record, and where it lies."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes


class _Consumer:
    """A consumer of librdkafka's whose errors are ours."""

    def __init__(self, cluster: Cluster, topic: str, settings: Mapping[str, Value], **callbacks: Any) -> None:
        self._topic = topic
        self._where = f"kafka {cluster.brokers}, topic {topic}"
        self._away: KafkaError | None = None
        common: dict[str, Value] = {"enable.auto.commit": False, "auto.offset.reset": "earliest"}
        every: Any = cluster.settings({**common, **settings})
        self._consumer = Consumer({**every, **callbacks, "error_cb": self._on_error})

    def close(self) -> None:
        self._consumer.close()

    def _messages(self, within_s: float) -> list[Message]:
        """Return what is there, or comes within that time.

        Raises:
            KafkaException: no broker is there.
        """
        first = self._consumer.poll(within_s)
        if self._away is not None:
            raise KafkaException(self._away)
        return [] if first is None else [first, *self._consumer.consume(_MOST, timeout=0)]

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except KafkaException as error:
            raise UnavailableError(f"{self._where}: {reason(self._away or error.args[0])}") from error

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal() or error.code() in _OUTAGES:  # others pass by themselves, or come back with a message
            self._away = error


class GroupConsumer(_Consumer):
    """Our share of a topic; whoever comes back under the same name has its share back at once.

    Where the group's coordinator moves again and again, librdkafka may lose its place for good, and say nothing (issues
    3396 and 5511 of librdkafka are of this kind): a commit never ends, and nothing comes any more. So a commit is not
    waited for but by a time of our own, and while nothing comes the group is asked for us.
    """

    def __init__(
        self,
        cluster: Cluster,
        topic: str,
        *,
        group: str,
        member: str,
        ask_group_every_s: float = _ASK_GROUP_EVERY_S,
    ) -> None:
        super().__init__(
            cluster,
            topic,
            {"group.id": group, "group.instance.id": member, "session.timeout.ms": _SESSION_MS},
            on_commit=self._on_commit,
        )
        self._commits: deque[float] = deque()  # that are on their way, by when they are to have come there
        self._refused: KafkaError | None = None
        settings: Any = cluster.settings({})
        self._admin = AdminClient(settings)
        self._group, self._member = group, member
        self._ask_group_every_s = ask_group_every_s
        self._ask_group_at = monotonic() + ask_group_every_s
        self._was_out_of_place = False
        self._consumer.subscribe([topic])

    def take(self, within_s: float) -> list[Taken]:
        """Return records that come within that time.

        Raises:
            UnavailableError: no broker answers, what was committed is not, and comes again, or the group has us no
                more. A new consumer may join it.
        """
        with self._translated():
            self._see_that_commits_arrive()
            found = self._messages(within_s)
            for message in found:
                error = message.error()
                if error is not None:
                    raise KafkaException(error)
            if found:
                self._was_out_of_place = False
                self._ask_group_at = monotonic() + self._ask_group_every_s
            elif monotonic() >= self._ask_group_at:
                self._see_that_we_are_in_place()
            return [_taken(message) for message in found]

    def commit(self) -> None:
        """Let the group go on behind what was taken; whether it does, shows by what is taken next.

        Raises:
            UnavailableError: it was not committed, and comes again.
        """
        with self._translated():
            self._consumer.commit(asynchronous=True)
        self._commits.append(monotonic() + _COMMITTED_WITHIN_S)

    def _on_commit(self, error: KafkaError | None, _partitions: list[TopicPartition]) -> None:
        if self._commits:  # an error in a callback would be taken for one of Kafka's
            self._commits.popleft()
        self._refused = self._refused if error is None else error

    def _see_that_commits_arrive(self) -> None:
        if self._refused is not None:
            raise KafkaException(self._refused)
        if self._commits and monotonic() > self._commits[0]:
            raise UnavailableError(f"{self._where}: what was committed did not arrive; joining {self._group} anew")

    def _see_that_we_are_in_place(self) -> None:
        """Compare what the group says of us with what we have; twice, since it may just be sharing out anew."""
        described = self._admin.describe_consumer_groups([self._group], request_timeout=_ASK_WITHIN_S)
        shares = [
            {each.partition for each in member.assignment.topic_partitions if each.topic == self._topic}
            for member in described[self._group].result().members
            if member.group_instance_id == self._member
        ]
        is_out_of_place = shares != [{each.partition for each in self._consumer.assignment()}]
        if is_out_of_place and self._was_out_of_place:
            raise UnavailableError(f"{self._where}: group {self._group} has lost {self._member}; joining it anew")
        self._was_out_of_place = is_out_of_place
        self._ask_group_at = monotonic() + self._ask_group_every_s


class Stretch(Struct, frozen=True):
    """Records that follow each other in their partitions."""

    records: list[Taken]
    at: dict[int, int]  # of each partition, what comes next
    anew: frozenset[int]  # partitions that have become shorter: their topic was made anew, and offsets begin again
    ends: dict[int, int] = {}  # of each partition, where it ended after the reading began; now and then, else nothing


class OffsetReader(_Consumer):
    """Reads from wherever it is told to. To go back is slow, so it holds what it has read last, some MiB."""

    def __init__(self, cluster: Cluster, topic: str) -> None:
        super().__init__(
            cluster,
            topic,
            {
                "group.id": _NO_GROUP,
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 50,
                "queued.max.messages.kbytes": _AHEAD_KIB,
            },
        )
        self._held: deque[Taken] = deque()
        self._held_bytes = 0
        self._from: dict[int, int] = {}  # of each partition, where what is held begins
        self._at: dict[int, int] = {}  # and where it ends
        self._partitions: list[int] = []
        self._look_at = 0.0
        self._end_at = 0.0

    def read(self, start: Mapping[int, int], within_s: float) -> Stretch:
        """Return what is held, or comes within that time, of the records from `start` on.

        A partition that is not named there is read whole; what has expired is left out.

        Raises:
            UnavailableError: no broker answers, or there is no such topic.
        """
        with self._translated():
            wanted = {partition: start.get(partition, 0) for partition in self._look()}
            if self._is_elsewhere(wanted):
                self._go_to(wanted)
            is_late = any(wanted[each] < self._at[each] for each in wanted)
            anew = self._read_on(0 if is_late else within_s) if self._has_room(wanted) else frozenset()
            ends = self._ends()
        records = [
            record for record in self._held if record.offset >= wanted[record.partition] or record.partition in anew
        ]
        return Stretch(records, dict(self._at), anew, ends)

    def _is_elsewhere(self, wanted: dict[int, int]) -> bool:
        if wanted.keys() != self._at.keys():
            return True
        return any(not self._from[partition] <= at <= self._at[partition] for partition, at in wanted.items())

    def _go_to(self, wanted: dict[int, int]) -> None:
        self._consumer.assign([TopicPartition(self._topic, partition, at) for partition, at in wanted.items()])
        self._from, self._at = dict(wanted), dict(wanted)
        self._held.clear()
        self._held_bytes = 0

    def _has_room(self, wanted: dict[int, int]) -> bool:
        """Let go of what nobody wants, as far as there is too much; say whether more may come."""
        while self._held_bytes > _HELD_BYTES and self._held[0].offset < wanted[self._held[0].partition]:
            gone = self._held.popleft()
            self._held_bytes -= len(gone.value)
            self._from[gone.partition] = gone.offset + 1
        return self._held_bytes <= _HELD_BYTES

    def _read_on(self, within_s: float) -> frozenset[int]:
        anew = set()
        for message in self._messages(within_s):
            error, (partition, offset) = message.error(), _place(message)
            if error is not None and error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001
                raise KafkaException(error)
            if offset < self._at[partition]:
                anew.add(partition)
                self._from[partition] = 0
            elif offset > self._at[partition] > 0:
                self._tell_of_gap(partition, self._at[partition], offset)
            if error is None:
                taken = _taken(message)
                self._held.append(taken)
                self._held_bytes += len(taken.value)
            self._at[partition] = offset + (error is None)
        return frozenset(anew)

    def _tell_of_gap(self, partition: int, wanted: int, found: int) -> None:
        log.error(
            "kafka_records_gone",
            topic=self._topic,
            partition=partition,
            wanted=wanted,
            action=f"going on at {found}",
            lost=found - wanted,
        )

    def _ends(self) -> dict[int, int]:
        """Ask the broker: what a fetch said of it may be older than what others have read since."""
        if monotonic() < self._end_at:
            return {}
        found = {
            partition: self._consumer.get_watermark_offsets(
                TopicPartition(self._topic, partition), timeout=_ASK_WITHIN_S, cached=False
            )[1]
            for partition in self._partitions
        }
        self._end_at = monotonic() + _END_EVERY_S
        return found

    def _look(self) -> list[int]:
        if monotonic() >= self._look_at:
            found = self._consumer.list_topics(self._topic, timeout=_ASK_WITHIN_S).topics[self._topic]
            if found.error is not None:
                raise KafkaException(found.error)
            self._partitions = sorted(found.partitions)
            self._look_at = monotonic() + _LOOK_EVERY_S
        return self._partitions


def _taken(message: Message) -> Taken:
    partition, offset = _place(message)
    return Taken(partition, offset, message.key(), message.value() or b"")


def _place(message: Message) -> tuple[int, int]:
    """Return partition and offset, which every message has that was consumed."""
    return cast("tuple[int, int]", (message.partition(), message.offset()))
