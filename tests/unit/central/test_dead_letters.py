"""A letter that its topic never takes whole goes there cut, and holds up none of those behind it."""

import pytest

from central.dead_letters import DeadLetterCarrier
from models.contracts.errors import UnavailableError
from models.contracts.event import DeadLetter
from models.contracts.scalars import EventId
from models.contracts.wire import decode_dead_letter, encode
from tests.fakes.carrier import FarEnd

KIB = 1 << 10


def letter(number: int, size: int, **beside: object) -> DeadLetter:
    whole = {"key": b"k", "headers": (("trace", b"1"),), **beside}
    return DeadLetter(
        id=EventId(f"events.0.{number}"),
        source="events",
        received_at_ms=1,
        reason="not-a-verdict",
        detail="found nothing",
        raw=bytes(size),
        **whole,  # type: ignore[arg-type]
    )


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


@pytest.mark.parametrize("beside", [{"key": bytes(90 * KIB)}, {"headers": (("trace", bytes(90 * KIB)),)}])
def test_where_what_came_beside_it_is_long_that_stays_away(beside: dict[str, object]) -> None:
    (found,) = delivered(letter(0, 10, **beside), limit=64 * KIB)

    assert (found.raw, found.key, found.headers) == (bytes(10), None, ())
    assert found.detail == "found nothing; of its 10 bytes the first 10 are here, without key and headers"


def test_a_topic_that_takes_not_even_that_is_away() -> None:
    with pytest.raises(UnavailableError, match=r"raise their topic's `max.message.bytes`"):
        delivered(letter(0, 100 * KIB), limit=KIB)
