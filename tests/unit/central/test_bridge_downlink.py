"""Which verdicts a gateway is to know of, and what it gets of them when it asks."""

from hypothesis import given
from hypothesis import strategies as st

from central.bridge_downlink import Waiting, following, for_gateways
from dataflows.connectors.kafka_consumer import Stretch, Taken
from dataflows.connectors.kafka_publisher import Outgoing
from dataflows.connectors.mqtt_connection import Incoming
from dataflows.connectors.mqtt_requests import Request
from dataflows.connectors.uplink import HOLD_S, MESSAGE_BYTES, decode_answers, encode_wanted
from models.contracts.verdict import CENTRAL, PERSON
from models.contracts.wire import encode
from tests.fakes.verdicts import verdict


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def request(gateway: str, have: dict[int, int]) -> Request:
    return Request(gateway, Incoming(f"headwater/{gateway}/wanted", encode_wanted(have), gateway.encode(), 1))


def record(offset: int, gateway: str = "gw", partition: int = 0, value: bytes = b"") -> Taken:
    return Taken(partition, offset, gateway.encode(), value or b"%d.%d" % (partition, offset))


def stretch(*records: Taken, at: dict[int, int], anew: frozenset[int] = frozenset()) -> Stretch:
    return Stretch(list(records), at, anew)


def test_a_gateway_is_to_know_what_the_centre_and_people_say_and_not_what_it_said_itself() -> None:
    centre, person = (encode(verdict(gateway="gw", revision=revision)) for revision in (CENTRAL, PERSON))
    own, audited = (encode(verdict(gateway="gw", revision=revision)) for revision in (0, 1))
    of_nobody = encode(verdict(revision=CENTRAL))

    assert for_gateways([own, centre, audited, person, of_nobody, b"no JSON", b"[]"], "headwater.downlink") == [
        Outgoing("headwater.downlink", b"gw", centre),
        Outgoing("headwater.downlink", b"gw", person),
    ]


def test_what_a_gateway_has_is_left_out_and_what_others_get_moves_it_on() -> None:
    then, lines = following({0: 5}, [record(4), record(6)], stretch(at={0: 9, 1: 3}))

    assert (then, lines) == ({0: 9, 1: 3}, [b"0.6"])


def test_a_gateway_that_is_ahead_of_what_was_read_stays_there() -> None:
    assert following({0: 50}, [record(6)], stretch(at={0: 9})) == ({0: 50}, [])


def test_what_does_not_fit_into_one_answer_is_where_the_next_one_begins() -> None:
    long = b"x" * (MESSAGE_BYTES // 2 + 1)
    its = [record(1, value=long), record(4, partition=1, value=long), record(7, value=long), record(8, partition=1)]

    then, lines = following({}, its, stretch(at={0: 9, 1: 9}))

    assert (then, lines) == ({0: 7, 1: 4}, [long])


def test_a_line_longer_than_any_message_goes_alone() -> None:
    huge = b"x" * (2 * MESSAGE_BYTES)

    assert following({}, [record(1, value=huge), record(2)], stretch(at={0: 9})) == ({0: 2}, [huge])


def test_a_topic_that_was_made_anew_is_read_from_its_beginning() -> None:
    assert following({0: 500}, [record(0)], stretch(at={0: 1}, anew=frozenset([0]))) == ({0: 1}, [b"0.0"])


@given(st.lists(st.integers(1, MESSAGE_BYTES), max_size=30), st.integers(1, 4))
def test_whoever_asks_until_nothing_comes_has_everything_once_and_in_order(sizes: list[int], partitions: int) -> None:
    its = [
        record(at // partitions, partition=at % partitions, value=b"%d " % at + b"x" * size)
        for at, size in enumerate(sizes)
    ]
    whole = stretch(*its, at=dict.fromkeys(range(partitions), len(sizes)))

    have: dict[int, int] = {}
    got: list[bytes] = []
    while True:
        then, lines = following(have, its, whole)
        if not lines:
            break
        assert then != have
        have, got = then, [*got, *lines]

    assert sorted(got) == sorted(each.value for each in its)
    assert have == whole.at or not its


def test_a_gateway_is_answered_when_there_is_something_and_the_others_wait() -> None:
    waiting = Waiting(Clock())
    waiting.add(request("gw", {0: 5}))
    waiting.add(request("other", {0: 3}))
    assert waiting.start() == {0: 3}

    ((answered, payload),) = waiting.learn(stretch(record(3), record(6), at={0: 7}))

    assert answered.gateway == "gw"
    assert decode_answers(payload) == ({0: 7}, [b"0.6"])
    assert waiting.start() == {0: 7}
    assert waiting


def test_a_gateway_that_got_a_part_is_waited_for_a_moment_so_that_nobody_has_to_go_back_for_it() -> None:
    clock = Clock()
    waiting = Waiting(clock)
    waiting.add(request("late", {0: 0}))
    waiting.add(request("gw", {0: 9}))
    long = b"x" * (MESSAGE_BYTES // 2 + 1)
    list(waiting.learn(stretch(record(1, "late", value=long), record(2, "late", value=long), at={0: 9})))
    assert waiting.start() == {0: 2}

    clock.now_s += 1.0
    assert waiting.start() == {0: 9}


def test_a_gateway_that_has_waited_long_is_told_how_far_it_may_go_on() -> None:
    clock = Clock()
    waiting = Waiting(clock)
    waiting.add(request("gw", {0: 5}))
    assert list(waiting.learn(stretch(at={0: 8}))) == []
    clock.now_s += HOLD_S

    ((_, payload),) = waiting.learn(stretch(at={0: 9}))

    assert decode_answers(payload) == ({0: 9}, [])
    assert not waiting


def test_of_two_questions_of_one_gateway_the_later_one_is_answered() -> None:
    waiting = Waiting(Clock())
    waiting.add(request("gw", {0: 5}))
    later = request("gw", {0: 6})
    waiting.add(later)

    assert [each for each, _ in waiting.dismiss()] == [later]
    assert not waiting


def test_a_partition_that_a_gateway_does_not_know_is_read_whole_for_it() -> None:
    waiting = Waiting(Clock())
    waiting.add(request("gw", {0: 5, 1: 5}))
    waiting.add(request("new", {}))

    assert waiting.start() == {0: 0, 1: 0}


def test_a_question_that_is_none_is_left_unanswered() -> None:
    waiting = Waiting(Clock())
    waiting.add(Request("gw", Incoming("headwater/gw/wanted", b"what?", b"", 1)))

    assert not waiting
