"""A real topic as a source: every record once in its order, and no gap that nobody chose."""

import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from threading import Event
from time import monotonic, time
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.cimpl import NewPartitions

from central.local_kafka import LocalKafka
from dataflows.connectors.batch import Batch
from dataflows.connectors.kafka import Cluster
from dataflows.connectors.kafka_source import Consuming, KafkaSlot, KafkaSource, Position, is_another
from models.contracts.errors import ConfigError

WITHIN_S = 60.0


def produce(kafka: LocalKafka, topic: str, records: range, partitions: int = 1) -> None:
    """Produce numbers as records, in turns to each partition."""
    producer = Producer({"bootstrap.servers": kafka.brokers, "log_level": 0})
    for number in records:
        producer.produce(topic, str(number).encode(), partition=number % partitions)
    assert producer.flush(WITHIN_S) == 0


def consuming(kafka: LocalKafka, topic: str, **wanted: Any) -> Consuming:
    cluster = Cluster(brokers=kafka.brokers)
    return Consuming(cluster=cluster, topic=topic, group=topic, name="events", **wanted)


@contextmanager
def slot(
    of: Consuming, resume: Position | None = None, *, drain: bool = True, part: str = "slot-0-of-1"
) -> Iterator[KafkaSlot]:
    with closing(KafkaSource(of, Event(), drain=drain).build_part("records", part, resume)) as partition:
        yield partition


def numbers(batches: list[Batch]) -> list[int]:
    return [int(record) for batch in batches for record in batch.records]


def read(partition: KafkaSlot, count: int | None = None) -> list[Batch]:
    """Read so many records, or to the end."""
    found: list[Batch] = []
    deadline = monotonic() + WITHIN_S
    while count is None or len(numbers(found)) < count:
        assert monotonic() < deadline, f"{len(numbers(found))} of {count} records"
        try:
            found += partition.next_batch()
        except StopIteration:
            assert count is None
            break
    return found


def test_every_record_of_every_partition_comes_once_and_in_its_order(kafka: LocalKafka, topic: str) -> None:
    kafka.make_topic(topic, partitions=4)
    produce(kafka, topic, range(2000), partitions=4)
    with slot(consuming(kafka, topic)) as partition:
        batches = read(partition)

    assert sorted(numbers(batches)) == list(range(2000))
    tag = batches[0].ids[0].removeprefix(f"{topic}.").split(".")[0]
    assert len(tag) == 6
    for number in range(4):
        mine = [batch for batch in batches if batch.ids[0].startswith(f"{topic}.{tag}.{number}.")]
        assert numbers(mine) == list(range(number, 2000, 4))
        assert [each for batch in mine for each in batch.ids] == [f"{topic}.{tag}.{number}.{at}" for at in range(500)]


def test_slots_share_the_partitions_among_them(kafka: LocalKafka, topic: str) -> None:
    kafka.make_topic(topic, partitions=3)
    produce(kafka, topic, range(30), partitions=3)
    shared = consuming(kafka, topic, slots=2)
    found = []
    for part in KafkaSource(shared, Event()).list_parts():
        with slot(shared, part=part) as partition:
            found.append(numbers(read(partition)))

    assert {frozenset(number % 3 for number in mine) for mine in found} == {frozenset({0, 2}), frozenset({1})}
    assert sorted(number for mine in found for number in mine) == list(range(30))


def test_a_record_that_is_read_again_is_of_the_day_on_which_it_was_written(kafka: LocalKafka, topic: str) -> None:
    kafka.make_topic(topic)
    producer = Producer({"bootstrap.servers": kafka.brokers, "log_level": 0})
    day_ms = 24 * 3600 * 1000
    midnight_ms = int(time() * 1000) // day_ms * day_ms
    written_ms = [midnight_ms - 2, midnight_ms - 1, midnight_ms, midnight_ms + 1, midnight_ms - 1]
    for number, at_ms in enumerate(written_ms):
        producer.produce(topic, str(number).encode(), timestamp=at_ms)
    assert producer.flush(WITHIN_S) == 0
    with slot(consuming(kafka, topic)) as partition:
        batches = read(partition)

    assert numbers(batches) == [0, 1, 2, 3, 4]
    days = {number: batch.received_at_ms // day_ms for batch in batches for number in numbers([batch])}
    assert [days[number] for number in range(5)] == [at_ms // day_ms for at_ms in written_ms]


def test_the_processes_of_a_cluster_share_the_slots_and_none_of_them_may_be_idle(kafka: LocalKafka, topic: str) -> None:
    def of(process: int, processes: int) -> list[str]:
        shared = consuming(kafka, topic, slots=4, process=process, processes=processes)
        return KafkaSource(shared, Event()).list_parts()

    assert of(0, 1) == ["slot-0-of-4", "slot-1-of-4", "slot-2-of-4", "slot-3-of-4"]
    assert [of(process, 3) for process in range(3)] == [
        ["slot-0-of-4", "slot-3-of-4"],
        ["slot-1-of-4"],
        ["slot-2-of-4"],
    ]
    with pytest.raises(ConfigError, match="found 4 slots for 5 processes"):
        of(0, 5)


def test_keys_and_headers_come_along_where_there_are_any(kafka: LocalKafka, topic: str) -> None:
    kafka.make_topic(topic)
    producer = Producer({"bootstrap.servers": kafka.brokers, "log_level": 0})
    producer.produce(topic, b"bare")
    with slot(consuming(kafka, topic), drain=False) as partition:
        assert producer.flush(WITHIN_S) == 0
        (bare,) = read_batches(partition)
        producer.produce(topic, b"keyed", b"\xff", headers=[("a", b"\x00"), ("a", b"2"), ("none", None)])
        producer.produce(topic, None, b"taken back")
        assert producer.flush(WITHIN_S) == 0
        (whole,) = read_batches(partition)

    assert (bare.records, bare.topics, bare.keys, bare.headers) == ([b"bare"], [topic], [], [])
    assert (whole.records, whole.keys) == ([b"keyed", b""], [b"\xff", b"taken back"])
    assert whole.headers == [(("a", b"\x00"), ("a", b"2"), ("none", b"")), ()]


def read_batches(partition: KafkaSlot) -> list[Batch]:
    deadline = monotonic() + WITHIN_S
    while not (found := partition.next_batch()):
        assert monotonic() < deadline
    return found


def test_reading_goes_on_where_the_last_epoch_ended(kafka: LocalKafka, topic: str) -> None:
    kafka.make_topic(topic)
    produce(kafka, topic, range(100))
    few = consuming(kafka, topic, batch_records=10)
    with slot(few, drain=False) as partition:
        before = read(partition, 30)
        kept = partition.snapshot()
        read(partition, 10)
    with slot(few, kept) as partition:
        after = read(partition)

    assert numbers(before + after) == list(range(100))


def test_an_offset_is_committed_to_the_group_only_when_its_epoch_is_on_disk(kafka: LocalKafka, topic: str) -> None:
    kafka.make_topic(topic)
    produce(kafka, topic, range(50))
    with slot(consuming(kafka, topic), drain=False) as partition:
        read(partition, 50)
        partition.snapshot()
        assert committed(kafka, topic) < 0
        deadline = monotonic() + WITHIN_S
        while committed(kafka, topic) < 0 and monotonic() < deadline:
            partition.next_batch()

    assert committed(kafka, topic) == 50


def committed(kafka: LocalKafka, topic: str, partition: int = 0) -> int:
    with closing(Consumer({"bootstrap.servers": kafka.brokers, "group.id": topic, "log_level": 0})) as consumer:
        return consumer.committed([TopicPartition(topic, partition)], timeout=WITHIN_S)[0].offset


def test_a_partition_that_is_added_is_read_from_its_beginning_without_a_restart(kafka: LocalKafka, topic: str) -> None:
    kafka.make_topic(topic)
    produce(kafka, topic, range(5))
    with slot(consuming(kafka, topic, start="newest", look_every_s=0.2), drain=False) as partition:
        assert partition.next_batch() == []
        admin = kafka.admin()
        admin.create_partitions([NewPartitions(topic, 3)])[topic].result(WITHIN_S)
        produce(kafka, topic, range(100, 109), partitions=3)

        assert sorted(numbers(read(partition, 9))) == list(range(100, 109))
        assert partition.snapshot().next.keys() == {0, 1, 2}


def test_who_begins_at_the_newest_misses_nothing_that_came_while_it_was_down(kafka: LocalKafka, topic: str) -> None:
    kafka.make_topic(topic)
    produce(kafka, topic, range(7))
    newest = consuming(kafka, topic, start="newest")
    with slot(newest) as partition:
        assert read(partition) == []
        kept = partition.snapshot()
    produce(kafka, topic, range(100, 120))
    with slot(newest, kept) as partition:
        assert numbers(read(partition)) == list(range(100, 120))


@pytest.mark.parametrize(("gone", "first"), [("oldest", 60), ("newest", 100)])
def test_where_records_are_gone_reading_goes_on_as_the_operator_chose(
    kafka: LocalKafka, topic: str, gone: str, first: int
) -> None:
    kept = with_a_gap(kafka, topic)
    with slot(consuming(kafka, topic, gone=gone), kept) as partition:
        assert numbers(read(partition)) == list(range(first, 100))
        assert partition.snapshot().next == {0: 100}


def test_where_records_are_gone_and_nobody_chose_the_flow_stops(kafka: LocalKafka, topic: str) -> None:
    kept = with_a_gap(kafka, topic)
    with (
        slot(consuming(kafka, topic), kept) as partition,
        pytest.raises(ConfigError, match="offset 10 is not there, 60 to 100 are; set `gone`"),
    ):
        read(partition)


@pytest.mark.parametrize(
    ("ends_by", "first"),
    [
        (signal.SIGTERM, 60),
        (signal.SIGKILL, 10),  # a broker that crashed may have forgotten that records were deleted
    ],
)
def test_a_gap_is_crossed_when_the_broker_is_back_that_went_away_beside_it(
    kafka: LocalKafka, topic: str, ends_by: signal.Signals, first: int
) -> None:
    kept = with_a_gap(kafka, topic)
    with slot(consuming(kafka, topic, gone="oldest"), kept, drain=False) as partition:
        deadline = monotonic() + WITHIN_S
        while not partition._gaps:
            assert partition.next_batch() == []
            assert monotonic() < deadline
        kafka.stop(ends_by)
        assert partition.next_batch() == []
        kafka.start()

        assert numbers(read(partition, 100 - first)) == list(range(first, 100))


def test_what_retention_deletes_before_it_is_read_is_a_gap(kafka: LocalKafka, topic: str) -> None:
    kafka.make_topic(topic, retention_ms="200", segment_ms="200")
    produce(kafka, topic, range(10))
    with slot(consuming(kafka, topic, gone="oldest"), drain=False) as partition:
        assert numbers(read(partition, 10)) == list(range(10))
        kept = partition.snapshot()
    produce(kafka, topic, range(10, 60))
    consumer = Consumer({"bootstrap.servers": kafka.brokers, "group.id": "tests", "log_level": 0})
    deadline = monotonic() + WITHIN_S
    while consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=WITHIN_S)[0] < 60:
        assert monotonic() < deadline
    consumer.close()
    with slot(consuming(kafka, topic), kept) as partition, pytest.raises(ConfigError, match="offset 10 is not there"):
        read(partition)
    with slot(consuming(kafka, topic, gone="oldest"), kept, drain=False) as partition:
        produce(kafka, topic, range(60, 70))
        assert numbers(read(partition, 10)) == list(range(60, 70))


def made_anew(kafka: LocalKafka, topic: str, records: range) -> None:
    """Delete a topic, make another one of its name, and fill it."""
    admin = kafka.admin()
    (deleted,) = admin.delete_topics([topic]).values()
    deleted.result(WITHIN_S)
    kafka.make_topic(topic)
    produce(kafka, topic, records)


@pytest.mark.parametrize(("gone", "found"), [("oldest", range(100, 200)), ("newest", range(0))])
def test_a_topic_that_is_made_anew_and_filled_is_read_as_the_operator_chose(
    kafka: LocalKafka, topic: str, gone: str, found: range
) -> None:
    kafka.make_topic(topic)
    produce(kafka, topic, range(10))
    with slot(consuming(kafka, topic)) as partition:
        before = read(partition)
        kept = partition.snapshot()
    made_anew(kafka, topic, range(100, 200))
    with slot(consuming(kafka, topic), kept) as partition, pytest.raises(ConfigError, match="was made anew"):
        read(partition)
    with slot(consuming(kafka, topic, gone=gone), kept) as partition:
        after = read(partition)

    assert numbers(after) == list(found)
    assert not {event_id for batch in before for event_id in batch.ids} & {i for batch in after for i in batch.ids}
    assert partition.snapshot().next == {0: 100}


@pytest.mark.parametrize(
    ("before", "now", "another"), [("a", "b", True), ("a", "a", False), ("", "b", False), ("a", "", False)]
)
def test_a_topic_of_which_no_id_is_told_is_not_taken_for_another(before: str, now: str, *, another: bool) -> None:
    assert is_another(before, now) is another


def test_a_topic_that_is_made_anew_while_it_is_read_is_read_from_its_beginning(kafka: LocalKafka, topic: str) -> None:
    kafka.make_topic(topic)
    produce(kafka, topic, range(10))
    with slot(consuming(kafka, topic, gone="oldest", look_every_s=0.2), drain=False) as partition:
        read(partition, 10)
        made_anew(kafka, topic, range(100, 200))

        assert numbers(read(partition, 100)) == list(range(100, 200))


def with_a_gap(kafka: LocalKafka, topic: str) -> Position:
    """Read ten of a hundred records, and have sixty deleted."""
    kafka.make_topic(topic)
    produce(kafka, topic, range(100))
    admin = kafka.admin()
    (deleted,) = admin.delete_records([TopicPartition(topic, 0, 60)]).values()
    deleted.result(WITHIN_S)
    return Position("", {0: 10})


def test_nothing_is_lost_or_doubled_while_the_broker_is_killed_and_comes_back(kafka: LocalKafka, topic: str) -> None:
    kafka.make_topic(topic)
    produce(kafka, topic, range(1000))
    with slot(consuming(kafka, topic, batch_records=10), drain=False) as partition:
        before = read(partition, 100)
        kafka.stop(signal.SIGKILL)
        for _ in range(20):
            before += partition.next_batch()
        kafka.start()
        produce(kafka, topic, range(1000, 1100))
        after = read(partition, 1100 - len(numbers(before)))

    assert numbers(before + after) == list(range(1100))


def test_a_flow_that_starts_before_its_broker_waits_for_it(kafka: LocalKafka, topic: str) -> None:
    kafka.make_topic(topic)
    produce(kafka, topic, range(3))
    kafka.stop()
    with slot(consuming(kafka, topic), drain=False) as partition:
        assert partition.next_batch() == []
        kafka.start()
        assert numbers(read(partition, 3)) == [0, 1, 2]
