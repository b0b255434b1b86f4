"""Topic filters that would deliver a message twice are refused."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.client import topic_matches_sub

from dataflows.connectors.mqtt import Session, check_topics
from models.contracts.errors import ConfigError

levels = st.sampled_from(["a", "b", "+", "", "$SYS"])
filters = st.builds(
    lambda levels, all_below: "/".join([*levels, "#"] if all_below else levels),
    st.lists(levels, min_size=1, max_size=3),
    st.booleans(),
).filter(bool)
topics = st.lists(st.sampled_from(["a", "b", "", "$SYS"]), min_size=1, max_size=4).map("/".join)


@pytest.mark.parametrize("topic", ["", "a/#/b", "a#", "#a", "a+/b", "a/+b"])
def test_a_filter_that_mqtt_does_not_know_is_refused(topic: str) -> None:
    with pytest.raises(ConfigError, match="stands for a whole level"):
        check_topics("source `m`", ["x", topic])


@pytest.mark.parametrize(
    ("one", "other"), [("a", "a"), ("a/#", "a"), ("a/+", "a/b"), ("#", "+/b"), ("+/b", "a/+"), ("$share/g/a/b", "a/#")]
)
def test_filters_that_overlap_are_refused_and_named(one: str, other: str) -> None:
    with pytest.raises(ConfigError, match="overlap, so that the broker would send some messages twice"):
        check_topics("source `m`", ["x/y/z", one, other])


@pytest.mark.parametrize(
    ("one", "other"), [("a/+", "a/b/c"), ("a/#", "b/#"), ("+/b", "+/c"), ("#", "$SYS/load"), ("a/+/c", "a/b/d")]
)
def test_filters_that_exclude_each_other_are_taken(one: str, other: str) -> None:
    check_topics("source `m`", [one, other])


@given(filters, filters, topics)
def test_no_two_filters_that_are_taken_match_the_same_topic(one: str, other: str, topic: str) -> None:
    try:
        check_topics("source `m`", [one, other])
    except ConfigError:
        return
    assert not (topic_matches_sub(one, topic) and topic_matches_sub(other, topic))


def test_a_session_that_was_remembered_without_its_filters_is_still_known() -> None:
    old = msgspec.msgpack.encode([b"key"])

    assert msgspec.msgpack.decode(old, type=Session) == Session(b"key", ())
