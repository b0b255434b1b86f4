"""What stands in a message between gateway and bridge, and what does not fit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflows.connectors.uplink import (
    DOWNLINK,
    UPLINK,
    check_root,
    decode_answers,
    decode_wanted,
    encode_answers,
    encode_wanted,
    gateway_of,
    packed,
    shared_filter,
    topic_of,
)
from models.contracts.errors import ConfigError, InputError

offsets = st.dictionaries(st.integers(0, 63), st.integers(0, 1 << 62))


def test_the_topics_of_a_gateway_end_with_what_they_are_for() -> None:
    assert topic_of("plant/headwater", "gw.1", UPLINK.ask) == "plant/headwater/gw.1/uplink"
    assert gateway_of("plant/headwater/gw.1/uplink") == "gw.1"
    assert shared_filter("headwater", DOWNLINK.ask) == "$share/bridge/headwater/+/wanted"


@pytest.mark.parametrize("root", ["", "#", "a/+", "/a", "a/", "$share/a"])
def test_a_root_that_no_topic_can_have_is_refused(root: str) -> None:
    with pytest.raises(ConfigError, match=r"edge\.toml: `root`: found `.*`; wanted levels of a topic"):
        check_root("edge.toml", root)


@given(st.lists(st.integers(0, 50), max_size=60), st.integers(0, 100))
def test_every_line_goes_once_and_in_order_and_together_they_fit(sizes: list[int], most: int) -> None:
    stretches = list(packed(sizes, most))

    assert [position for stretch in stretches for position in stretch] == list(range(len(sizes)))
    for stretch in stretches:
        assert len(stretch) == 1 or sum(sizes[at] for at in stretch) + len(stretch) - 1 <= most


def test_no_message_has_more_lines_than_a_bridge_takes() -> None:
    assert [len(stretch) for stretch in packed([0] * 2500, 1 << 20)] == [1000, 1000, 500]


@given(offsets, st.lists(st.binary(max_size=20).filter(lambda line: b"\n" not in line), max_size=5))
def test_what_is_asked_and_answered_is_read_as_it_was_written(have: dict[int, int], lines: list[bytes]) -> None:
    assert decode_wanted(encode_wanted(have)) == have
    assert decode_answers(encode_answers(have, lines)) == (have, lines)


@pytest.mark.parametrize("payload", [b"", b"[]", b'{"a":1}', b'{"0":"x"}', b"\xff"])
def test_a_question_that_is_none_is_bad_input(payload: bytes) -> None:
    with pytest.raises(InputError, match="offsets: "):
        decode_wanted(payload)
