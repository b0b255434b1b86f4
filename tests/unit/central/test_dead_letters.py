"""A letter that its topic never takes whole goes there cut, and holds up none of those behind it."""

import pytest

from central.dead_letters import DeadLetterCarrier, cut
from models.contracts.errors import UnavailableError
from models.contracts.event import LONGEST_ID, DeadLetter
from models.contracts.scalars import EventId
from models.contracts.wire import decode_dead_letter, encode
from tests.fakes.carrier import FarEnd

KIB = 1 << 10


def letter(number: int, size: int, **changed: object) -> DeadLetter:
    usual = {
        "id": EventId(f"events.0.{number}"),
        "source": "events",
        "received_at_ms": 1,
        "reason": "not-a-verdict",
        "detail": "found nothing",
        "raw": bytes(size),
        "key": b"k",
        "headers": (("trace", b"1"),),
    }
    return DeadLetter(**{**usual, **changed})  # type: ignore[arg-type]


def delivered(*letters: DeadLetter, limit: int) -> list[DeadLetter]:
    topic = FarEnd()
    topic.refuse = lambda payload: "" if len(payload) <= limit else f"{len(payload)} bytes"
    assert DeadLetterCarrier(topic).deliver([encode(each) for each in letters]) == ()
    return [decode_dead_letter(payload) for payload in topic.received]


def test_what_the_topic_takes_is_there_whole_and_the_rest_is_cut() -> None:
    small, large = letter(0, 10), letter(1, 100 * KIB)
    first, second = delivered(small, large, limit=64 * KIB)

    assert first == small
    assert (second.id, second.reason, second.key, second.headers) == (large.id, large.reason, b"k", large.headers)
    assert second.raw == large.raw[: 16 * KIB]
    assert second.detail == "found nothing; of its 102400 bytes the first 16384 are here"
    assert (first.cut_from, second.cut_from) == (0, 100 * KIB + len("k") + len("trace1"))


@pytest.mark.parametrize("beside", [{"key": bytes(90 * KIB)}, {"headers": (("trace", bytes(90 * KIB)),)}])
def test_where_what_came_beside_it_is_long_that_stays_away(beside: dict[str, object]) -> None:
    (found,) = delivered(letter(0, 10, **beside), limit=64 * KIB)

    assert (found.raw, found.key, found.headers) == (bytes(10), None, ())
    assert found.detail == "found nothing; of its 10 bytes the first 10 are here, without key and headers"
    assert found.cut_from > 90 * KIB


@pytest.mark.parametrize(
    "changed",
    [
        {"detail": "\x01" * KIB * KIB},
        {"id": EventId("gw~" + "\x01" * KIB * KIB)},
        {"topic": "\x01" * KIB * KIB},
        {"headers": (("\x01" * KIB * KIB, b""),)},
        {"headers": (("", b""),) * 100 * KIB},
    ],
    ids=["detail", "id", "topic", "name of a header", "empty headers"],
)
def test_a_letter_that_is_cut_is_short_whatever_was_long_in_it(changed: dict[str, object]) -> None:
    longest = cut(letter(0, KIB * KIB, **{"key": bytes(8 * KIB), "headers": (("a", bytes(3 * KIB)),), **changed}))

    assert len(encode(longest)) < 64 * KIB
    assert decode_dead_letter(encode(longest)) == longest
    assert len(longest.raw) == 16 * KIB


def test_two_long_ids_are_two_when_they_are_cut_and_an_id_of_ours_stays() -> None:
    ours = EventId("g" * LONGEST_ID)
    long = EventId("gw~" + "x" * KIB)

    assert cut(letter(0, 1, id=ours)).id == ours
    assert cut(letter(0, 1, id=long)).id != cut(letter(0, 1, id=EventId(long + "y"))).id


def test_a_letter_of_which_only_what_we_said_is_cut_has_its_record_whole() -> None:
    found = cut(letter(0, 10, detail="x" * KIB * KIB))

    assert (found.raw, found.key, found.cut_from) == (bytes(10), b"k", 0)


def test_what_a_record_had_is_known_however_often_its_letter_is_cut() -> None:
    once = cut(letter(0, 100 * KIB))

    assert cut(once).cut_from == once.cut_from


def test_a_topic_that_takes_not_even_that_is_away() -> None:
    with pytest.raises(UnavailableError, match=r"raise their topic's `max.message.bytes`"):
        delivered(letter(0, 100 * KIB), limit=KIB)
