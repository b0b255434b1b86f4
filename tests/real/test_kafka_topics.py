"""The centre's topics on a real broker: made as declared, and never changed where nobody asks."""

import pytest

from central.local_kafka import LocalKafka
from central.topics import Finding, Names, create, declared, examine
from dataflows.connectors.kafka import Cluster
from models.contracts.errors import ConfigError, UnavailableError


def states(findings: list[Finding]) -> dict[str, str]:
    return {finding.topic: finding.state for finding in findings}


def test_topics_are_made_as_declared_and_then_all_is_well(kafka: LocalKafka, topic: str) -> None:
    cluster, wanted = Cluster(brokers=kafka.brokers), declared(topic, partitions=3)
    before = states(examine(cluster, wanted))
    assert before == {each.name: "note" if each.optional else "problem" for each in wanted}

    assert states(create(cluster, wanted)) == {each.name: "ok" for each in wanted}
    assert states(examine(cluster, wanted)) == {each.name: "ok" for each in wanted}
    assert create(cluster, wanted) == []


def test_what_is_there_stays_as_it_is_until_somebody_asks_for_more_partitions(kafka: LocalKafka, topic: str) -> None:
    cluster, names = Cluster(brokers=kafka.brokers), Names(topic)
    kafka.make_topic(names.verdicts, partitions=2, retention_ms="1000")
    kafka.make_topic(names.answers, partitions=2, cleanup_policy="compact")
    wanted = declared(topic, partitions=3)
    create(cluster, wanted)
    found = [finding for finding in examine(cluster, wanted) if finding.state != "ok"]
    assert [(finding.topic, finding.state, finding.words.partition(";")[0]) for finding in found] == [
        (names.verdicts, "note", "found 2 partitions, wanted 3"),
        (names.verdicts, "problem", "found retention.ms = 1000, wanted 2592000000: records go earlier"),
        (names.answers, "note", "found 2 partitions, wanted 3"),
    ]

    assert create(cluster, wanted, grow=True) == [Finding(names.verdicts, "ok", "from 2 partitions to 3")]
    left = [finding for finding in examine(cluster, wanted) if finding.state != "ok"]
    assert [(finding.topic, finding.state) for finding in left] == [
        (names.verdicts, "problem"),
        (names.answers, "note"),
    ]


def test_more_replicas_than_there_are_brokers_cannot_be_had(kafka: LocalKafka, topic: str) -> None:
    with pytest.raises(ConfigError, match=rf"topic {topic}\.events: .*INVALID_REPLICATION_FACTOR"):
        create(Cluster(brokers=kafka.brokers), declared(topic, replication=3))


def test_a_cluster_that_is_away_is_an_outage(topic: str) -> None:
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:9, .*Connection refused"):
        examine(Cluster(brokers="127.0.0.1:9"), declared(topic))
