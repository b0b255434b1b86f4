import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from dataflows.operators.decode import PLAIN, Reading, decode_records
from models.contracts.event import full_id
from models.contracts.verdict import CENTRAL
from models.contracts.wire import encode
from tests.fakes.records import batch
from tests.fakes.verdicts import verdict

MSG = Reading(text_path="log.msg")


def texts(*records: bytes | str, reading: Reading = PLAIN) -> list[tuple[str, bool, bool]]:
    decoded = decode_records(batch(*records), reading)
    assert decoded.letters == []
    return [(event.text, event.truncated, event.replaced) for event in decoded.events]


def reasons(*records: bytes | str, reading: Reading = PLAIN) -> list[tuple[str, str]]:
    decoded = decode_records(batch(*records), reading)
    assert decoded.events == []
    return [(letter.reason, letter.detail) for letter in decoded.letters]


def test_an_event_keeps_the_record_and_the_model_reads_it_without_its_header() -> None:
    (event,) = decode_records(batch("<86>Jan 31 23:59:59 web-1 sshd[42]: Failed password for root")).events

    assert event.text == "<86>Jan 31 23:59:59 web-1 sshd[42]: Failed password for root"
    assert event.body == "sshd: Failed password for root"
    assert (event.id, event.source, event.received_at_ms) == ("o.0", "hosts", 1_700_000_000_000)
    assert (event.host, event.app, event.severity, event.occurred_at_ms) == ("web-1", "sshd", 6, 1_675_209_599_000)


def test_bytes_that_are_no_utf_8_are_replaced_and_marked_and_their_neighbours_are_not() -> None:
    assert texts(b"fine", b"caf\xe9", "caf\u00e9") == [
        ("fine", False, False),
        ("caf\ufffd", False, True),
        ("caf\u00e9", False, False),
    ]


def test_a_replacement_character_that_the_sender_wrote_is_not_marked() -> None:
    assert texts("odd \ufffd") == [("odd \ufffd", False, False)]
    assert texts("\ufffd cut", reading=Reading(max_bytes=5)) == [("\ufffd c", True, False)]


def test_a_long_record_is_cut_and_marked_and_one_at_the_limit_is_not() -> None:
    assert texts(b"x" * 11, b"x" * 10, reading=Reading(max_bytes=10)) == [
        ("x" * 10, True, False),
        ("x" * 10, False, False),
    ]


@pytest.mark.parametrize(("limit", "kept"), [(4, "abc"), (5, "abc"), (6, "abc\u20ac"), (7, "abc\u20acd")])
def test_a_cut_never_splits_a_character_nor_marks_it_as_invalid(limit: int, kept: str) -> None:
    assert texts("abc\u20acdefg", reading=Reading(max_bytes=limit)) == [(kept, True, False)]


def test_a_record_of_nothing_is_a_dead_letter() -> None:
    assert reasons(b"", b"  \t\r\n") == [("empty", "nothing but white space")] * 2


def test_a_dead_letter_holds_the_whole_record_and_its_id() -> None:
    (letter,) = decode_records(batch("no json", start=7), MSG).letters

    assert (letter.id, letter.source, letter.raw, letter.reason) == ("o.7", "hosts", b"no json", "not-json")


@pytest.mark.parametrize("last", [b"fine", b"caf\xe9"])
def test_an_event_and_a_dead_letter_keep_the_topic_they_came_by(last: bytes) -> None:
    plain = decode_records(batch("one", last, topics=["devices/1", "devices/2"]))
    assert [event.topic for event in plain.events] == ["devices/1", "devices/2"]

    read = decode_records(batch('{"log": {"msg": "hello"}}', "no json", topics=["devices/1", "devices/2"]), MSG)
    assert [event.topic for event in read.events] == ["devices/1"]
    assert [letter.topic for letter in read.letters] == ["devices/2"]
    assert [event.topic for event in decode_records(batch("one")).events] == [None]


def test_the_text_of_a_json_record_stands_at_its_path() -> None:
    assert texts('{"log": {"msg": "hello", "other": 1}}', reading=MSG) == [("hello", False, False)]


@pytest.mark.parametrize(
    ("record", "found"),
    [
        ('{"log": {}}', "nothing"),
        ('{"log": {"msg": null}}', "nothing"),
        ('{"log": {"msg": 7}}', "int"),
        ('{"log": {"msg": ["a"]}}', "list"),
        ('{"log": "msg"}', "nothing"),
        ('["log"]', "nothing"),
    ],
)
def test_a_json_record_without_a_string_at_the_path_is_a_dead_letter_that_says_what_stands_there(
    record: str, found: str
) -> None:
    assert reasons(record, reading=MSG) == [("no-text-at-path", f"`log.msg`: found {found}, wanted a string")]


@pytest.mark.parametrize("record", [b"", b"{", b"{]}", b"\xff\xfe", b"nul", b'{"log": {"msg": "x", "n": NaN}}'])
def test_what_is_no_json_is_a_dead_letter(record: bytes) -> None:
    assert [reason for reason, _ in reasons(record, reading=MSG)] == ["not-json"]


@pytest.mark.parametrize("deep", ["[" * 100_000, '{"a":' * 100_000, f"{'[' * 100_000}{']' * 100_000}"])
@pytest.mark.parametrize("before", ["", '["\\ud83d",', "[1e309,"])
def test_json_that_is_too_deep_is_a_dead_letter_whatever_stands_before(before: str, deep: str) -> None:
    assert [reason for reason, _ in reasons(f"{before}{deep}", reading=MSG)] == ["not-json"]


@pytest.mark.parametrize("number", ["1e309", "-1e400", "9" * 5000])
def test_a_number_that_nothing_holds_is_no_reason_to_refuse_the_text_beside_it(number: str) -> None:
    assert texts(f'{{"n": {number}, "log": {{"msg": "hello"}}}}', reading=MSG) == [("hello", False, False)]


def test_half_of_an_escaped_character_is_replaced_and_marked_in_the_text_and_unheeded_elsewhere() -> None:
    assert texts(
        r'{"log": {"msg": "cut \ud83d"}}',
        r'{"log": {"msg": "whole \ud83d\ude00"}}',
        r'{"log": {"msg": "fine", "other": "\ude00"}}',
        reading=MSG,
    ) == [("cut \ufffd", False, True), ("whole \U0001f600", False, False), ("fine", False, False)]


def test_half_of_an_escaped_character_is_no_part_of_an_id() -> None:
    assert sent_ids("a\ud83d", "a\ud83e", "a") == ["o.0", "o.1", sent_ids("a")[0]]


def test_bad_bytes_within_a_json_string_are_replaced_and_marked() -> None:
    assert texts(b'{"log": {"msg": "caf\xe9"}}', reading=MSG) == [("caf\ufffd", False, True)]


def test_the_limit_is_for_the_text_not_for_the_json_around_it() -> None:
    record = json.dumps({"log": {"msg": "x" * 11, "padding": "y" * 100}})

    assert texts(record, reading=Reading(text_path="log.msg", max_bytes=10)) == [("x" * 10, True, False)]
    assert texts(record, reading=Reading(text_path="log.msg", max_bytes=11)) == [("x" * 11, False, False)]


def sent_ids(*sent: Any, source: str = "hosts", topics: Sequence[str] = ()) -> list[str]:
    """Return the events' ids for what their senders call them."""
    records = [json.dumps({"msg": "hello", "id": one}) for one in sent]
    came = batch(*records, source=source, topics=topics)
    return [event.id for event in decode_records(came, Reading(text_path="msg", id_path="id")).events]


@pytest.mark.parametrize("sent", ["abc", 17, "17", "0", "a/b", "\u00e9", "x" * 128])
def test_the_senders_own_id_names_the_event_the_same_wherever_the_record_stands(sent: Any) -> None:
    first, second = sent_ids(sent, sent)

    assert first == second
    assert first.startswith("o.id/hosts/")
    assert first.endswith(f"/{'string' if isinstance(sent, str) else 'number'}/{sent}")


@pytest.mark.parametrize("sent", ["", None, True, 1.5, {}, "x" * 129, int("9" * 129), "caf\ufffd"])
def test_what_cannot_be_a_senders_id_leaves_the_event_ours(sent: Any) -> None:
    assert sent_ids(sent) == ["o.0"]


def test_a_senders_id_counts_for_its_source_its_topic_and_its_json_type_alone() -> None:
    topics = ["devices/1", "devices/2"]
    ids = [
        event_id
        for source in ("door-sensors", "pumps")
        for sent in (17, "17")
        for event_id in sent_ids(sent, sent, source=source, topics=topics)
    ]

    assert len(set(ids)) == len(ids) == 8
    assert ids[:2] == sent_ids(17, 17, source="door-sensors", topics=topics)


def test_no_senders_id_can_be_that_of_another_record() -> None:
    records = [json.dumps({"msg": "hello", "id": sent}) for sent in ("1", "0", "id.1", 1, 0)]

    events = decode_records(batch("{}", *records), Reading(text_path="msg", id_path="id")).events

    assert {event.id for event in events}.isdisjoint({f"o.{n}" for n in range(4)})


@given(st.lists(st.binary(max_size=40), max_size=5), st.sampled_from([Reading(max_bytes=16), MSG]))
def test_every_record_is_an_event_or_a_dead_letter(records: list[bytes], reading: Reading) -> None:
    decoded = decode_records(batch(*records), reading)

    ids = [event.id for event in decoded.events] + [letter.id for letter in decoded.letters]
    assert sorted(ids) == sorted(f"o.{n}" for n in range(len(records)))
    assert all(event.text.strip() and event.body for event in decoded.events)


@given(st.lists(st.text(min_size=1, max_size=20).filter(str.strip), min_size=1, max_size=4))
def test_a_record_reads_the_same_alone_and_beside_one_that_needs_a_second_look(lines: list[str]) -> None:
    encoded = [line.encode("utf-8", "replace") for line in lines]
    beside = decode_records(batch(*encoded, b"\xff")).events[:-1]

    assert [event for line_batch in (batch(*encoded),) for event in decode_records(line_batch).events] == beside


ASKED = verdict(
    id=full_id("gw-1", "spool.7"),
    text="<86>Jan 31 23:59:59 web-1 sshd[42]: Failed",
    route="escalated",
    gateway="gw-1",
    revision=1,
)


def test_a_question_is_the_gateways_event_again_under_its_own_id_and_above_its_verdict() -> None:
    (event,) = decode_records(batch(encode(ASKED)), Reading(kind="questions")).events

    assert (event.id, event.text, event.body) == (ASKED.id, ASKED.text, "sshd: Failed")
    assert (event.source, event.received_at_ms, event.host) == (ASKED.source, ASKED.received_at_ms, ASKED.host)
    assert (event.gateway, event.revision) == ("gw-1", CENTRAL)


def test_what_the_centre_said_itself_is_no_question() -> None:
    (letter,) = decode_records(batch(encode(replace(ASKED, revision=CENTRAL))), Reading(kind="questions")).letters

    assert letter.reason == "not-a-question"


@pytest.mark.parametrize("gateway", ["gw-2", "gw", None])
def test_a_question_about_another_gateways_event_is_none(gateway: str | None) -> None:
    (letter,) = decode_records(batch(encode(replace(ASKED, gateway=gateway))), Reading(kind="questions")).letters

    assert (letter.reason, letter.detail) == (
        "not-a-question",
        f"id `gw-1~spool.7`, which is none of gateway `{gateway}`",
    )


def test_a_question_of_another_task_is_none_since_our_answer_would_supersede_it() -> None:
    reading = Reading(kind="questions", labels=("billing", "other"))
    ours = replace(ASKED, id=full_id("gw-1", "spool.8"), label="billing")

    decoded = decode_records(batch(encode(ASKED), encode(ours)), reading)

    assert [event.id for event in decoded.events] == [ours.id]
    (letter,) = decoded.letters
    assert letter.reason == "of-another-task"
    assert letter.detail == f"label `{ASKED.label}`, and ours are ['billing', 'other']; look at `engine`"


def test_the_ids_of_a_gateways_events_begin_with_its_name_and_so_do_those_that_senders_gave() -> None:
    (ours,) = decode_records(batch(b"door opened"), Reading(gateway="gw-1")).events
    sent = decode_records(
        batch(b'{"id": 17, "text": "door opened"}'), Reading(gateway="gw.1", text_path="text", id_path="id")
    )
    (nobodys,) = decode_records(batch(b"door opened")).events

    assert ours.id == f"gw-1~{nobodys.id}"
    assert sent.events[0].id.startswith("gw.1~")
    assert sent.events[0].id.endswith("/number/17")


def test_an_answer_for_this_gateway_goes_on_as_it_is_and_one_for_another_is_a_dead_letter() -> None:
    other = replace(ASKED, gateway="gw-2")
    decoded = decode_records(batch(encode(ASKED), encode(other)), Reading(kind="answers", gateway="gw-1"))

    assert decoded.answers == [ASKED]
    assert [(letter.reason, letter.raw) for letter in decoded.letters] == [("not-our-answer", encode(other))]


def test_verdicts_of_all_gateways_go_on_as_they_are() -> None:
    other = replace(ASKED, gateway="gw-2")

    assert decode_records(batch(encode(ASKED), encode(other)), Reading(kind="verdicts")).answers == [ASKED, other]


@pytest.mark.parametrize("kind", ["questions", "answers", "verdicts"])
@pytest.mark.parametrize("record", [b"", b"{", b"[]", b'{"type": "verdict/2"}', b'{"type": "event/1"}', b"\xff"])
def test_what_is_no_verdict_is_a_dead_letter_with_its_key_and_headers(kind: Any, record: bytes) -> None:
    came = replace(batch(record), keys=[b"k"], headers=[(("trace", b"1"),)])
    (letter,) = decode_records(came, Reading(kind=kind)).letters

    assert (letter.reason, letter.raw, letter.key, letter.headers) == (
        "not-a-verdict",
        record,
        b"k",
        (("trace", b"1"),),
    )


def test_a_verdict_of_a_newer_schema_is_read_without_what_it_has_more() -> None:
    newer = encode(ASKED).replace(b"{", b'{"mood": "sunny", ', 1)

    assert decode_records(batch(newer), Reading(kind="verdicts")).answers == [ASKED]
