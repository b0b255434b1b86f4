"""What becomes of each line that a gateway sends."""

from typing import Any

import pytest

from central.bridge_uplink import sort_lines
from central.topics import Names
from dataflows.connectors.kafka_publisher import Outgoing
from dataflows.connectors.mqtt_connection import Incoming
from dataflows.connectors.mqtt_requests import Request
from models.contracts.event import LONGEST_ID, full_id
from models.contracts.verdict import CENTRAL
from models.contracts.wire import decode_dead_letter, encode
from tests.fakes.verdicts import verdict

NAMES = Names()
NOW_MS = 1_700_000_000_000
DAY_MS = 24 * 3600 * 1000


def request(payload: bytes, gateway: str = "gw") -> Request:
    return Request(gateway, Incoming(f"headwater/{gateway}/uplink", payload, b"attempt", 1))


def line(own_id: str = "o.1", **changed: Any) -> bytes:
    return encode(verdict(gateway="gw", id=full_id("gw", own_id), **changed))


def reason(raw: bytes) -> str:
    found = sort_lines([request(raw)], NAMES, NOW_MS)
    assert found.records == []
    (letter,) = found.letters
    assert letter.raw == raw
    return letter.reason


def test_a_verdict_goes_byte_for_byte_and_a_question_to_both_topics() -> None:
    accepted, escalated = line(), line("o.2", route="escalated")
    unsure, review = line("o.3", route="unsure"), line("o.4", route="review")

    found = sort_lines(
        [request(b"\n".join([accepted, escalated])), request(b"\n".join([unsure, review]))], NAMES, NOW_MS
    )

    assert found.records == [
        Outgoing("headwater.verdicts", b"gw~o.1", accepted),
        Outgoing("headwater.verdicts", b"gw~o.2", escalated),
        Outgoing("headwater.questions", b"gw~o.2", escalated),
        Outgoing("headwater.verdicts", b"gw~o.3", unsure),
        Outgoing("headwater.questions", b"gw~o.3", unsure),
        Outgoing("headwater.verdicts", b"gw~o.4", review),
    ]
    assert found.letters == []


def test_a_message_without_lines_asks_for_nothing_but_a_confirmation() -> None:
    found = sort_lines([request(b""), request(b"\n\n")], NAMES, NOW_MS)

    assert (found.records, found.letters) == ([], [])


def test_what_a_newer_gateway_has_added_goes_on_and_what_it_has_redefined_does_not() -> None:
    newer = line().replace(b'"id":', b'"depth":{"a":[1]},"id":')

    assert sort_lines([request(newer)], NAMES, NOW_MS).records == [Outgoing("headwater.verdicts", b"gw~o.1", newer)]
    assert reason(line().replace(b"verdict/1", b"verdict/2")) == "not-a-verdict"


def test_each_line_that_is_not_this_gateways_to_say_is_a_dead_letter_with_its_reason() -> None:
    assert reason(b"{}") == "not-a-verdict"
    assert reason(b"\xff") == "not-a-verdict"
    assert reason(b'{"type":"verdict/1","text":"\xff"}') == "not-a-verdict"
    assert reason(b'{"type":"verdict/1","depth":' + b"[" * 100_000) == "not-a-verdict"
    assert reason(encode(verdict(gateway="other"))) == "of-another-gateway"
    assert reason(encode(verdict())) == "of-another-gateway"
    assert reason(line(revision=CENTRAL)) == "not-a-gateways-revision"
    for theirs in (full_id("gw-2", "o.1"), "o.1", "gw", "headwater.events.0.17"):
        assert reason(encode(verdict(gateway="gw", id=theirs))) == "not-a-gateways-id"


def test_an_id_as_long_as_any_of_ours_goes_on_and_a_longer_one_is_a_dead_letter() -> None:
    longest = line("é" * ((LONGEST_ID - len("gw~")) // 2))
    longer = line("é" * (LONGEST_ID // 2))

    assert len(sort_lines([request(longest)], NAMES, NOW_MS).records) == 1
    assert reason(longer) == "id-too-long"


@pytest.mark.parametrize(
    "raw",
    [line("x" * 1_100_000), encode(verdict(gateway="gw", id="x" * 400)), b'{"type":"%b"}' % (b"x" * 1_100_000)],
    ids=["id too long", "another's id", "another kind"],
)
def test_of_what_a_gateway_wrote_a_dead_letter_says_only_the_beginning(raw: bytes) -> None:
    (letter,) = sort_lines([request(raw)], NAMES, NOW_MS).letters

    assert "xxx…" in letter.detail
    assert len(letter.detail) < 300


@pytest.mark.parametrize(
    ("received_at_ms", "wanted"),
    [
        (NOW_MS - 90 * DAY_MS - 1, "too-old"),
        (NOW_MS - 90 * DAY_MS, ""),
        (NOW_MS, ""),
        (NOW_MS + DAY_MS, ""),
        (NOW_MS + DAY_MS + 1, "clock-ahead"),
    ],
)
def test_what_was_received_on_a_day_that_nobody_lived_is_a_dead_letter(received_at_ms: int, wanted: str) -> None:
    found = sort_lines([request(line(received_at_ms=received_at_ms))], NAMES, NOW_MS)

    assert [letter.reason for letter in found.letters] == ([wanted] if wanted else [])
    assert len(found.records) == (0 if wanted else 1)


def test_a_message_of_more_lines_than_any_gateway_sends_is_one_dead_letter() -> None:
    assert reason(b"\n".join([b"x"] * 1001)) == "too-many-lines"
    assert len(sort_lines([request(b"\n".join([b"x"] * 1000))], NAMES, NOW_MS).letters) == 1000


def test_a_dead_letter_has_the_same_id_however_often_the_line_comes_and_can_be_read_again() -> None:
    (first,) = sort_lines([request(b"x")], NAMES, NOW_MS).letters
    (second,) = sort_lines([request(b"x")], NAMES, NOW_MS + 5).letters
    (other,) = sort_lines([request(b"x", gateway="gw-2")], NAMES, NOW_MS).letters
    (nameless,) = sort_lines([request(b"x", gateway="no name")], NAMES, NOW_MS).letters

    assert first.id == second.id != other.id
    assert (first.gateway, nameless.gateway) == ("gw", None)
    assert decode_dead_letter(encode(nameless)) == nameless
