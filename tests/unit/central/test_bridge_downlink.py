"""Which verdicts a gateway is to know of, and what it gets of them when it asks."""

from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, TopicPartition
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from central.bridge_downlink import Waiting, following, for_gateways
from dataflows.connectors import kafka_consumer
from dataflows.connectors.kafka import Cluster
from dataflows.connectors.kafka_consumer import OffsetReader, Stretch, Taken
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


def request(gateway: str, have: dict[int, int], longest: int = 1 << 28) -> Request:
    return Request(gateway, Incoming(f"headwater/{gateway}/wanted", encode_wanted(have), gateway.encode(), 1), longest)


def record(offset: int, gateway: str = "gw", partition: int = 0, value: bytes = b"") -> Taken:
    return Taken(partition, offset, gateway.encode(), value or b"%d.%d" % (partition, offset))


def stretch(
    *records: Taken, at: dict[int, int], anew: frozenset[int] = frozenset(), ends: dict[int, int] | None = None
) -> Stretch:
    return Stretch(list(records), at, anew, ends or {})


def test_a_gateway_is_to_know_what_the_centre_and_people_say_and_not_what_it_said_itself() -> None:
    centre, person = (encode(verdict(gateway="gw", revision=revision)) for revision in (CENTRAL, PERSON))
    own, audited = (encode(verdict(gateway="gw", revision=revision)) for revision in (0, 1))
    of_nobody = encode(verdict(revision=CENTRAL))

    assert for_gateways([own, centre, audited, person, of_nobody, b"no JSON", b"[]"], "headwater.downlink") == [
        Outgoing("headwater.downlink", b"gw", centre),
        Outgoing("headwater.downlink", b"gw", person),
    ]


@pytest.mark.parametrize(
    "line",
    [b'{"gateway": "gw\xff", "revision": 1000}', b'{"revision": 1000, "unknown": ' + b"[" * 5000],
    ids=["a bad byte inside a string", "too deep"],
)
def test_what_no_decoder_takes_is_none_of_these_and_its_neighbours_go_on(line: bytes) -> None:
    centre = encode(verdict(gateway="gw", revision=CENTRAL))

    assert for_gateways([line, centre], "headwater.downlink") == [Outgoing("headwater.downlink", b"gw", centre)]


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


@pytest.mark.parametrize(
    "payload",
    [b"what?", b'{"0\xff": 1}', b'{"0": "\xff"}', b"[" * 5000, b'{"0": ' + b"[" * 5000],
)
def test_a_question_that_is_none_is_left_unanswered(payload: bytes) -> None:
    waiting = Waiting(Clock())
    waiting.add(Request("gw", Incoming("headwater/gw/wanted", payload, b"", 1)))

    assert not waiting


def test_an_answer_is_no_longer_than_the_broker_takes() -> None:
    clock = Clock()
    waiting = Waiting(clock)
    its = [record(at, value=b"x" * 100) for at in range(30)]
    have: dict[int, int] = {}
    got: list[bytes] = []
    while have.get(0, 0) < 30:
        waiting.add(request("gw", have, longest=1000))
        ((_, payload),) = waiting.learn(stretch(*its, at={0: 30}))
        assert len(payload) <= 1000
        have, lines = decode_answers(payload)
        got += lines

    assert got == [each.value for each in its]


def test_a_line_for_which_no_answer_is_long_enough_is_left_out_and_told_and_its_neighbours_go_on() -> None:
    waiting = Waiting(Clock())
    waiting.add(request("gw", {0: 1}, longest=1000))
    its = [record(at, value=b"%d" % at if at % 2 else b"x" * 1000) for at in range(5)]

    with capture_logs() as logged:
        ((_, payload),) = waiting.learn(stretch(*its, at={0: 5}))

    assert decode_answers(payload) == ({0: 5}, [b"1", b"3"])
    assert [(each["event"], each["gateway"], each["offset"], each["bytes"]) for each in logged] == [
        ("answer_too_large", "gw", 2, 1000),
        ("answer_too_large", "gw", 4, 1000),
    ]


def test_a_line_that_is_too_long_is_told_of_once_and_not_before_its_turn() -> None:
    waiting = Waiting(Clock())
    its = [record(0, value=b"a" * 600), record(1, value=b"b" * 600), record(2, value=b"x" * 1000)]
    told = []
    for have in ({0: 0}, {0: 1}, {0: 3}):
        waiting.add(request("gw", have, longest=1000))
        with capture_logs() as logged:
            list(waiting.learn(stretch(*its, at={0: 3})))
        told.append(len(logged))

    assert told == [0, 1, 0]


def test_a_gateway_that_has_more_than_there_is_begins_anew_and_no_other_does() -> None:
    waiting = Waiting(Clock())
    waiting.add(request("a", {0: 4}))
    waiting.add(request("c", {0: 1000, 1: 2}))
    with capture_logs() as logged:
        assert list(waiting.learn(stretch(at={0: 4, 1: 2}, ends={0: 4, 1: 2}))) == []
    assert [(each["event"], each["gateway"], each["offsets"]) for each in logged] == [
        ("offsets_beyond_the_end", "c", {0: 1000})
    ]
    assert waiting.start() == {0: 0, 1: 2}

    ((answered, payload),) = waiting.learn(stretch(record(2, "c"), record(3, "b"), at={0: 4, 1: 2}))

    assert answered.gateway == "c"
    assert decode_answers(payload) == ({0: 4, 1: 2}, [b"0.2"])


class Log:
    """One partition of a broker's, as a client of librdkafka's reads it."""

    def __init__(self) -> None:
        self.records: list[tuple[bytes, bytes]] = []
        self._at = 0
        self._told_end = -1

    def assign(self, places: list[TopicPartition]) -> None:
        self._at, self._told_end = places[0].offset, -1

    def poll(self, _within_s: float) -> Any:
        if self._at > len(self.records):
            self._at = 0  # `auto.offset.reset`
        if self._at < len(self.records):
            self._at += 1
            return self._message(self._at - 1, *self.records[self._at - 1])
        if self._told_end != self._at:
            self._told_end = self._at
            return self._message(self._at, error=KafkaError(KafkaError._PARTITION_EOF))
        return None

    def consume(self, _most: int, timeout: float) -> list[Any]:
        return list(iter(lambda: self.poll(timeout), None))

    def list_topics(self, topic: str, timeout: float) -> Any:
        return SimpleNamespace(topics={topic: SimpleNamespace(error=None, partitions={0: None})})

    def get_watermark_offsets(self, _place: TopicPartition, timeout: float, *, cached: bool) -> tuple[int, int]:
        assert timeout > 0
        assert not cached
        return 0, len(self.records)

    def close(self) -> None:
        pass

    @staticmethod
    def _message(offset: int, key: bytes = b"", value: bytes = b"", error: KafkaError | None = None) -> Any:
        return SimpleNamespace(
            partition=lambda: 0, offset=lambda: offset, key=lambda: key, value=lambda: value, error=lambda: error
        )


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    log = Log()
    monkeypatch.setattr(kafka_consumer, "Consumer", lambda _settings: log)
    monkeypatch.setattr(kafka_consumer, "_END_EVERY_S", 0.0)
    return log


def test_after_the_topic_was_made_anew_every_gateway_gets_its_answers_however_late_it_asks(log: Log) -> None:
    """A is reset when the reader finds itself out of range; C comes while the reader is well within it."""
    log.records = [(b"a", b"a0"), (b"c", b"c1"), (b"b", b"b2"), (b"c", b"c3")]
    clock = Clock()
    waiting = Waiting(clock)
    reader = OffsetReader(Cluster(brokers="nowhere:9"), "headwater.downlink")

    def turn() -> dict[str, tuple[dict[int, int], list[bytes]]]:
        found = waiting.learn(reader.read(waiting.start(), 0.0))
        return {each.gateway: decode_answers(payload) for each, payload in found}

    waiting.add(request("a", {0: 1000}))
    turns = [turn() for _ in range(3)]
    assert {"a": ({0: 4}, [b"a0"])} in turns

    waiting.add(request("a", {0: 4}))
    waiting.add(request("c", {0: 1000}))
    turns = [turn() for _ in range(3)]
    assert {"c": ({0: 4}, [b"c1", b"c3"])} in turns

    waiting.add(request("c", {0: 4}))
    log.records += [(b"c", b"c4"), (b"a", b"a5")]
    assert turn() == {"a": ({0: 6}, [b"a5"]), "c": ({0: 6}, [b"c4"])}
