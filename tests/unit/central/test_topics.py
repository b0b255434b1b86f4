"""Topics as declared against topics as they are: what differs is said with its harm and its remedy."""

import pytest
from msgspec.structs import replace

from central.topics import Topic, compare, declared
from dataflows.connectors.kafka_admin import Found

STREAM = Topic(name="t", holds="anything", key="an id", partitions=4, replication=3)
TABLE = replace(STREAM, cleanup="compact", retention_ms=-1)


def as_declared(topic: Topic) -> Found:
    return Found(partitions=topic.partitions, replication=topic.replication, settings=topic.settings)


def found(topic: Topic = STREAM, **settings: str) -> Found:
    there = as_declared(topic)
    changed = {name.replace("_", "."): value for name, value in settings.items()}
    return replace(there, settings={**there.settings, **changed})


def said(topic: Topic, there: Found | None) -> list[tuple[str, str]]:
    return [(finding.state, finding.words) for finding in compare(topic, there)]


@pytest.mark.parametrize("topic", declared("h", partitions=6, replication=3), ids=lambda topic: topic.name)
def test_a_topic_as_it_is_declared_is_well(topic: Topic) -> None:
    ((state, words),) = said(topic, as_declared(topic))

    assert state == "ok"
    assert topic.key in words


def test_every_name_has_the_prefix_and_no_two_are_the_same() -> None:
    names = [topic.name for topic in declared("h")]

    assert all(name.startswith("h.") for name in names)
    assert len(set(names)) == len(names)


def test_one_broker_may_be_away_where_there_are_three_replicas_and_none_where_there_is_one() -> None:
    assert [replace(STREAM, replication=number).min_insync for number in (1, 2, 3)] == [1, 1, 2]


def test_a_topic_that_is_not_there_is_a_problem_unless_it_is_optional() -> None:
    ((state, words),) = said(STREAM, None)
    assert (state, "`central check --create` makes it: 4 partitions, 3 replicas" in words) == ("problem", True)
    ((state, _),) = said(replace(STREAM, optional=True), None)
    assert state == "note"


@pytest.mark.parametrize(
    ("topic", "settings", "harm"),
    [
        (STREAM, {"cleanup_policy": "compact"}, "all but the last record of a key are deleted"),
        (TABLE, {"cleanup_policy": "delete"}, "what is old is deleted"),
        (TABLE, {"cleanup_policy": "compact,delete"}, "what is old is deleted"),
        (STREAM, {"retention_ms": "3600000"}, "records go earlier"),
        (STREAM, {"max_message_bytes": "1000"}, "larger records are refused"),
        (STREAM, {"min_insync_replicas": "1"}, "a record that one broker alone has acknowledged dies with it"),
        (STREAM, {"min_insync_replicas": "4"}, "it has 3 replicas, and so takes nothing at all"),
        (replace(STREAM, stamped_by="broker"), {"message_timestamp_type": "CreateTime"}, "a writer's clock"),
    ],
)
def test_a_setting_that_does_less_than_declared_is_a_problem_with_a_remedy(
    topic: Topic, settings: dict[str, str], harm: str
) -> None:
    ((state, words),) = said(topic, found(topic, **settings))

    assert state == "problem"
    ((name, value),) = settings.items()
    assert f"found {name.replace('_', '.')} = {value}, wanted {topic.settings[name.replace('_', '.')]}: {harm}" in words
    assert "`kafka-configs.sh --alter --topic t --add-config" in words


@pytest.mark.parametrize(
    ("topic", "settings"),
    [
        (STREAM, {"retention_ms": "-1"}),
        (STREAM, {"retention_ms": "9999999999999"}),
        (STREAM, {"max_message_bytes": "99999999"}),
        (STREAM, {"min_insync_replicas": "3"}),
        (STREAM, {"message_timestamp_type": "LogAppendTime"}),
        (TABLE, {"retention_ms": "1"}),  # nothing of what is compacted goes by its age
    ],
)
def test_a_setting_that_does_more_than_declared_is_well(topic: Topic, settings: dict[str, str]) -> None:
    assert [state for state, _ in said(topic, found(topic, **settings))] == ["ok"]


def test_too_few_partitions_are_a_note_and_only_of_a_stream_may_there_be_more() -> None:
    few = replace(as_declared(STREAM), partitions=1)
    ((state, words),) = said(STREAM, few)
    assert (state, "found 1 partition, wanted 4; `central check --create --grow`" in words) == ("note", True)
    ((state, words),) = said(TABLE, replace(as_declared(TABLE), partitions=1))
    assert (state, "a new topic can have more" in words) == ("note", True)
    assert said(STREAM, replace(as_declared(STREAM), partitions=9))[0][0] == "ok"


def test_too_few_replicas_and_a_size_at_which_records_go_are_said() -> None:
    ((state, words),) = said(STREAM, replace(as_declared(STREAM), replication=2))
    assert (state, "found 2 replicas, wanted 3" in words) == ("problem", True)
    ((state, words),) = said(STREAM, found(retention_bytes="1000000"))
    assert (state, "before their time" in words) == ("note", True)


def test_what_we_are_not_let_see_is_said() -> None:
    ((state, words),) = said(STREAM, Found(unseen="forbidden"))
    assert (state, "forbidden" in words) == ("problem", True)
    ((state, words),) = said(STREAM, replace(as_declared(STREAM), settings={}, unseen="forbidden"))
    assert (state, "forbidden" in words) == ("note", True)
