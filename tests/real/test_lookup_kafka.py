"""A compacted topic of a real broker as a table: read to its end, then followed; what is taken out is gone."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from time import monotonic, sleep
from typing import Any

import pytest
from confluent_kafka import Producer

from central.local_kafka import LocalKafka
from central.lookup_sources import CompactedTopic
from central.lookups import KafkaLookup, Lookups
from dataflows.connectors.kafka import Cluster
from dataflows.lookup import Facts, Tables
from models.contracts.errors import InputError, UnavailableError

WITHIN_S = 60.0


def produce(kafka: LocalKafka, topic: str, *records: tuple[str, str | None]) -> None:
    producer = Producer({"bootstrap.servers": kafka.brokers, "log_level": 0})
    for key, value in records:
        producer.produce(topic, value, key)
    assert producer.flush(WITHIN_S) == 0


@contextmanager
def running(kafka: LocalKafka, topic: str, **more: Any) -> Iterator[Tables]:
    section = KafkaLookup(name="assets", topic=topic, look_every_s=0.1, **more)
    lookups = Lookups([section], Cluster(brokers=kafka.brokers))
    lookups.start(WITHIN_S)
    try:
        yield lookups.tables
    finally:
        lookups.close()


def until(true: Callable[[], bool]) -> None:
    deadline = monotonic() + WITHIN_S
    while not true():
        assert monotonic() < deadline
        sleep(0.02)


def compacted(kafka: LocalKafka, topic: str, partitions: int = 1) -> None:
    kafka.make_topic(topic, partitions, cleanup_policy="compact")


def test_a_topic_is_read_whole_before_it_is_a_table_and_the_last_record_of_a_key_stands(
    kafka: LocalKafka, topic: str
) -> None:
    compacted(kafka, topic, partitions=3)
    rows = [(f"host-{number % 1000}", f'{{"owner": "team {number}", "rack": {number}}}') for number in range(5000)]
    produce(kafka, topic, *rows, ("host-7", None), ("10.0.0.0/8", '{"zone": "lan", "nat": true, "note": null}'))
    with closing(CompactedTopic(Cluster(brokers=kafka.brokers), topic, 10_000)) as source:
        table = source.read()

    assert table is not None
    assert len(table) == 1000
    assert table.find("HOST-8") == {"owner": "team 4008", "rack": "4008"}
    assert table.find("host-7") is None
    assert table.find("10.1.2.3") == {"zone": "lan", "nat": "true"}


def test_what_comes_later_is_in_force_and_what_is_taken_out_is_gone(kafka: LocalKafka, topic: str) -> None:
    compacted(kafka, topic)
    produce(kafka, topic, ("web-1", '{"owner": "shop"}'))

    def found(tables: Tables) -> Facts | None:
        return tables.find("assets", "web-1")

    with running(kafka, topic) as tables:
        assert (found(tables), tables.state("assets")) == ({"owner": "shop"}, "fresh")
        produce(kafka, topic, ("web-1", '{"owner": "bank"}'))
        until(lambda: found(tables) == {"owner": "bank"})
        produce(kafka, topic, ("web-1", None))
        until(lambda: found(tables) is None)


def test_a_record_that_is_no_object_leaves_what_was_said_before(kafka: LocalKafka, topic: str) -> None:
    compacted(kafka, topic)
    produce(kafka, topic, ("a", '{"owner": "shop"}'), ("a", "shop"), ("b", '{"owner": {"name": "shop"}}'), ("c", "{}"))
    with closing(CompactedTopic(Cluster(brokers=kafka.brokers), topic, 10)) as source:
        table = source.read()

    assert table is not None
    assert [table.find(key) for key in "abc"] == [{"owner": "shop"}, None, {}]


def test_an_empty_topic_is_an_empty_table(kafka: LocalKafka, topic: str) -> None:
    compacted(kafka, topic)
    with closing(CompactedTopic(Cluster(brokers=kafka.brokers), topic, 10)) as source:
        table = source.read()

        assert table is not None
        assert len(table) == 0
        assert source.read() is None


def test_more_keys_than_agreed_are_refused(kafka: LocalKafka, topic: str) -> None:
    compacted(kafka, topic)
    produce(kafka, topic, *((str(number), "{}") for number in range(11)))
    with (
        closing(CompactedTopic(Cluster(brokers=kafka.brokers), topic, 10)) as source,
        pytest.raises(InputError, match="more than 10 keys"),
    ):
        source.read()


def test_a_topic_that_is_not_there_is_an_outage(kafka: LocalKafka, topic: str) -> None:
    with (
        closing(CompactedTopic(Cluster(brokers=kafka.brokers), topic, 10)) as source,
        pytest.raises(UnavailableError, match="make the topic"),
    ):
        source.read()


def test_a_broker_that_goes_away_leaves_the_table_to_grow_old_and_what_changed_meanwhile_is_in_it_afterwards(
    kafka: LocalKafka, topic: str
) -> None:
    compacted(kafka, topic)
    produce(kafka, topic, ("web-1", '{"owner": "shop"}'), ("old-1", '{"owner": "shop"}'))
    with running(kafka, topic, fresh_s=2.0) as tables:
        kafka.stop()
        until(lambda: tables.state("assets") == "stale")
        assert tables.find("assets", "web-1") == {"owner": "shop"}
        kafka.start()
        produce(kafka, topic, ("web-1", '{"owner": "bank"}'), ("old-1", None))
        until(lambda: tables.state("assets") == "fresh" and tables.find("assets", "old-1") is None)

        assert tables.find("assets", "web-1") == {"owner": "bank"}
