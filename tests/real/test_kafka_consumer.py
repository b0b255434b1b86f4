"""Records of a real Kafka, from any offset on and shared by a group."""

from collections.abc import Callable, Iterator
from contextlib import closing
from time import monotonic

import pytest
from confluent_kafka import TopicPartition
from structlog.testing import capture_logs

from central.local_kafka import LocalKafka
from dataflows.connectors import kafka_consumer
from dataflows.connectors.kafka import Cluster
from dataflows.connectors.kafka_consumer import GroupConsumer, OffsetReader, Stretch, Taken
from models.contracts.errors import UnavailableError
from tests.real.bridge import produce

Read = Callable[..., Stretch]


@pytest.fixture
def read(kafka: LocalKafka, topic: str) -> Iterator[Read]:
    """Reads from some offsets on until something is as it should be."""
    with closing(OffsetReader(Cluster(brokers=kafka.brokers), topic)) as reader:

        def until(true: Callable[[Stretch], bool], start: dict[int, int] | None = None) -> Stretch:
            deadline = monotonic() + 30
            while not true(found := reader.read(start or {}, 0.1)):
                assert monotonic() < deadline, found
            return found

        yield until


def lines(first: int, stop: int) -> list[bytes]:
    return [b"%d" % number for number in range(first, stop)]


def values(found: Stretch) -> list[bytes]:
    return [record.value for record in found.records]


def test_what_follows_an_offset_is_read_again_whether_it_is_still_held_or_not(
    kafka: LocalKafka, topic: str, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_consumer, "_HELD_BYTES", 1000)
    kafka.make_topic(topic)
    produce(kafka, topic, lines(0, 2000))

    assert values(read(lambda found: found.at == {0: 2000}, {0: 1990})) == lines(1990, 2000)
    produce(kafka, topic, lines(2000, 4000))
    assert values(read(lambda found: found.at == {0: 4000}, {0: 3990})) == lines(3990, 4000)
    assert values(read(lambda found: found.at == {0: 4000}, {0: 3995})) == lines(3995, 4000)
    assert values(read(lambda found: len(found.records) > 10, {0: 7}))[:10] == lines(7, 17)
    assert values(read(lambda found: found.at == {0: 4000}, {0: 4000})) == []


def test_each_partition_is_read_from_its_own_place_and_an_unknown_one_whole(
    kafka: LocalKafka, topic: str, read: Read
) -> None:
    kafka.make_topic(topic, partitions=2)
    produce(kafka, topic, lines(0, 10))  # all with one key
    (full,) = {record.partition for record in read(lambda found: len(found.records) == 10).records}

    at = read(lambda found: len(found.at) == 2 and not found.records, {full: 10, 1 - full: 0}).at
    assert at == {full: 10, 1 - full: 0}
    assert values(read(lambda found: len(found.records) == 5, {full: 5})) == lines(5, 10)


def test_records_that_have_expired_are_left_out_and_named(kafka: LocalKafka, topic: str, read: Read) -> None:
    kafka.make_topic(topic)
    produce(kafka, topic, lines(0, 100))
    admin = kafka.admin()
    admin.delete_records([TopicPartition(topic, 0, 60)])[TopicPartition(topic, 0)].result(30)

    with capture_logs() as logged:
        found = read(lambda found: found.at == {0: 100}, {0: 40})

    assert values(found) == lines(60, 100)
    assert [(each["event"], each["wanted"], each["lost"]) for each in logged] == [("kafka_records_gone", 40, 20)]


def test_a_topic_that_was_made_anew_is_read_from_its_beginning(kafka: LocalKafka, topic: str, read: Read) -> None:
    kafka.make_topic(topic)
    produce(kafka, topic, lines(0, 3))

    found = read(lambda found: found.at == {0: 3}, {0: 500})

    assert (values(found), found.anew) == (lines(0, 3), frozenset([0]))


def test_a_topic_that_is_not_there_and_brokers_that_are_away_are_unavailable(kafka: LocalKafka, topic: str) -> None:
    there, nobody = Cluster(brokers=kafka.brokers), Cluster(brokers="127.0.0.1:9")
    nowhere = pytest.raises(UnavailableError, match=r"kafka 127\.0\.0\.1:9")

    with closing(OffsetReader(there, topic)) as reader, pytest.raises(UnavailableError, match="make the topic"):
        reader.read({}, 0.1)
    with closing(OffsetReader(nobody, topic)) as reader, nowhere:
        reader.read({}, 0.1)
    with closing(GroupConsumer(nobody, topic, group="g", member="m")) as consumer, nowhere:
        taken(consumer, 1)


def test_a_group_goes_on_behind_what_was_committed_and_repeats_what_was_not(kafka: LocalKafka, topic: str) -> None:
    kafka.make_topic(topic)
    produce(kafka, topic, lines(0, 20))
    cluster = Cluster(brokers=kafka.brokers)
    with closing(GroupConsumer(cluster, topic, group=topic, member="one")) as consumer:
        assert [record.value for record in taken(consumer, 20)] == lines(0, 20)
        consumer.commit()
        produce(kafka, topic, lines(20, 40))
        assert [record.value for record in taken(consumer, 20)] == lines(20, 40)

    began = monotonic()
    with closing(GroupConsumer(cluster, topic, group=topic, member="one")) as consumer:
        assert [record.value for record in taken(consumer, 20)] == lines(20, 40)
    assert monotonic() - began < 10  # and not only when its former self has timed out


def test_who_has_lost_its_place_in_the_group_is_told_so_and_who_is_idle_is_not(kafka: LocalKafka, topic: str) -> None:
    kafka.make_topic(topic, partitions=2)
    cluster = Cluster(brokers=kafka.brokers)

    def member() -> GroupConsumer:
        return GroupConsumer(cluster, topic, group=topic, member="one", ask_group_every_s=0.2)

    with closing(member()) as consumer:
        produce(kafka, topic, lines(0, 1))
        taken(consumer, 1)
        for _ in range(10):
            assert consumer.take(0.2) == []
        consumer._consumer.unsubscribe()  # as if librdkafka had forgotten: no error, and nothing comes
        produce(kafka, topic, lines(1, 2))
        with pytest.raises(UnavailableError, match=rf"group {topic} has lost one; joining it anew"):
            taken(consumer, 1)
    with closing(member()) as consumer:
        assert [record.value for record in taken(consumer, 2)] == lines(0, 2)


def test_a_commit_that_does_not_arrive_holds_nobody_up_and_is_told(
    kafka: LocalKafka, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_consumer, "_COMMITTED_WITHIN_S", 1.0)
    kafka.make_topic(topic)
    produce(kafka, topic, lines(0, 2))

    def member() -> GroupConsumer:
        return GroupConsumer(Cluster(brokers=kafka.brokers), topic, group=topic, member="one")

    with closing(member()) as consumer:
        taken(consumer, 2)
        kafka.hang()
        try:
            consumer.commit()
            with pytest.raises(UnavailableError, match=rf"what was committed did not arrive; joining {topic} anew"):
                taken(consumer, 1)
        finally:
            kafka.go_on()
    produce(kafka, topic, lines(2, 3))
    with closing(member()) as consumer:  # whether those before come again is the broker's to know
        while taken(consumer, 1)[-1].value != b"2":
            pass


def taken(consumer: GroupConsumer, count: int) -> list[Taken]:
    found: list[Taken] = []
    deadline = monotonic() + 60
    while len(found) < count:
        assert monotonic() < deadline, len(found)
        found += consumer.take(0.2)
    return found
