"""What is written is read back the same; what is unknown, wrong or out of range is met as the contracts say."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from models.contracts.answer import Answer
from models.contracts.errors import ConfigError, InputError
from models.contracts.event import DeadLetter, Event
from models.contracts.incident import Incident
from models.contracts.policy import Policy
from models.contracts.release import Release
from models.contracts.task import Task
from models.contracts.verdict import Verdict
from models.contracts.wire import (
    decode_answer,
    decode_dead_letter,
    decode_delivered,
    decode_event,
    decode_incident,
    decode_json,
    decode_toml,
    decode_verdict,
    encode,
    encode_lines,
)
from tests.unit.models.contracts.records import (
    answers,
    dead_letters,
    events,
    incidents,
    policies,
    releases,
    tasks,
    verdicts,
)

POLICY = Policy(number=3, accept_at=0.9, doubtful="unsure")


@given(events)
def test_an_event_is_read_back_as_it_was_written(event: Event) -> None:
    assert decode_event(encode(event)) == event


@given(verdicts)
def test_a_verdict_is_read_back_as_it_was_written(verdict: Verdict) -> None:
    assert decode_verdict(encode(verdict)) == verdict


@given(answers)
def test_an_answer_is_read_back_as_it_was_written(answer: Answer) -> None:
    assert decode_answer(encode(answer)) == answer


@given(st.one_of(verdicts, incidents))
def test_what_is_delivered_says_itself_what_it_is(record: Verdict | Incident) -> None:
    assert decode_delivered(encode(record)) == record


@given(incidents)
def test_an_incident_is_read_back_with_its_verdicts(incident: Incident) -> None:
    assert decode_incident(encode(incident)) == incident


@given(dead_letters)
def test_a_dead_letter_keeps_every_byte_of_the_record(dead_letter: DeadLetter) -> None:
    assert decode_dead_letter(encode(dead_letter)) == dead_letter


@given(st.one_of(tasks(), policies, releases))
def test_what_a_release_carries_is_read_back_as_it_was_written(record: Task | Policy | Release) -> None:
    assert decode_json(encode(record), type(record), "release") == record


@given(st.lists(events, max_size=4))
def test_json_lines_have_one_line_per_record_whatever_the_text_holds(batch: list[Event]) -> None:
    lines = encode_lines(batch).split(b"\n")

    assert lines.pop() == b""
    assert [decode_event(line) for line in lines] == batch


def with_more(record: msgspec.Struct, **more: Any) -> bytes:
    return msgspec.json.encode({**msgspec.json.decode(encode(record)), **more})


@given(st.one_of(events, verdicts, dead_letters, incidents, releases))
def test_a_field_from_a_newer_version_is_ignored_on_the_wire(record: msgspec.Struct) -> None:
    assert decode_json(with_more(record, colour="blue"), type(record), "record") == record


@given(st.one_of(tasks(), policies))
def test_an_unknown_key_of_a_policy_or_a_task_is_an_error(record: msgspec.Struct) -> None:
    with pytest.raises(InputError, match="unknown field `colour`"):
        decode_json(with_more(record, colour="blue"), type(record), "record")


@given(st.one_of(events, verdicts, dead_letters, incidents, releases))
def test_another_version_of_a_record_is_refused_by_its_tag(record: msgspec.Struct) -> None:
    with pytest.raises(InputError, match=r"Invalid value 'event/99' - at `\$\.type`"):
        decode_json(with_more(record, type="event/99"), type(record), "record")


@given(verdicts, st.floats(max_value=-1e-9, allow_nan=False) | st.floats(min_value=1.0000001, allow_nan=False))
def test_a_confidence_outside_zero_and_one_is_refused(verdict: Verdict, confidence: float) -> None:
    with pytest.raises(InputError):
        decode_verdict(with_more(verdict, confidence=confidence))


@given(st.binary(max_size=200))
def test_bytes_that_are_no_record_raise_nothing_but_the_promised_error(line: bytes) -> None:
    for decode in (decode_event, decode_verdict, decode_dead_letter, decode_incident):
        with pytest.raises(InputError):
            decode(line)


DECODERS = [
    (decode_event, b'{"type":"event/1",'),
    (decode_verdict, b'{"type":"verdict/1",'),
    (decode_dead_letter, b'{"type":"dead-letter/1",'),
    (decode_answer, b'{"type":"answer/1",'),
    (decode_incident, b'{"type":"incident/1",'),
    (decode_delivered, b'{"type":"verdict/1",'),
    (partial(decode_json, kind=Policy, where="policy"), b'{"type":"policy/1",'),
]


@pytest.mark.parametrize(("decode", "begun"), DECODERS)
@pytest.mark.parametrize("rest", [b'"id":"a\xff"}', b'"colour":"\xff"}', b'"\xff":1}'])
def test_a_bad_byte_inside_a_string_raises_nothing_but_the_promised_error(
    decode: Callable[[bytes], object], begun: bytes, rest: bytes
) -> None:
    with pytest.raises(InputError):
        decode(begun + rest)


@pytest.mark.parametrize(("decode", "begun"), DECODERS)
def test_an_unknown_field_that_is_too_deep_raises_nothing_but_the_promised_error(
    decode: Callable[[bytes], object], begun: bytes
) -> None:
    with pytest.raises(InputError):
        decode(begun + b'"colour":' + b"[" * 100_000)


def test_half_a_character_in_what_was_text_already_raises_nothing_but_the_promised_error() -> None:
    with pytest.raises(InputError):
        decode_json('"\ud800"', str, "a word")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("acept_at = 0.9", "policy.toml: Object contains unknown field `acept_at`; wanted perhaps `accept_at`"),
        ("accept_at = 1.9", "policy.toml: Expected `float` <= 1.0 - at `$.accept_at`"),
        ('number = "two"', "policy.toml: Expected `int`, got `str` - at `$.number`"),
        ("[[when]]\naccept_at = 0.9", "policy.toml: Object missing required field `context` - at `$.when[0]`"),
        ("[[when]]\n[when.context]", "policy.toml: Expected `object` of length >= 1 - at `$.when[0].context`"),
        (
            'doubtful = "later"',
            "policy.toml: Invalid enum value 'later' - at `$.doubtful`; wanted one of `escalated`, `review`, `unsure`",
        ),
        ('doubtful = "unsre"', "policy.toml: Invalid enum value 'unsre' - at `$.doubtful`; wanted perhaps `unsure`"),
    ],
)
def test_a_mistake_in_configuration_names_file_key_and_what_is_wanted(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        decode_toml(text, Policy, "policy.toml")

    assert str(caught.value) == message


class Door(Struct):
    colours: tuple[Literal["red", "blue"], ...] = ()
    lock: Literal["", "latch", "bolt"] | None = None


class House(Struct):
    doors: list[Door] = []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'colours = ["red", "grey"]',
            "Invalid enum value 'grey' - at `$.doors[1].colours[1]`; wanted one of `blue`, `red`",
        ),
        ('lock = "chain"', "Invalid enum value 'chain' - at `$.doors[1].lock`; wanted one of `bolt`, `latch`"),
        ('lock = "blot"', "Invalid enum value 'blot' - at `$.doors[1].lock`; wanted perhaps `bolt`"),
    ],
)
def test_a_word_that_is_none_of_those_wanted_is_answered_with_them(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        decode_toml(f'[[doors]]\ncolours = ["blue"]\nlock = "bolt"\n[[doors]]\n{text}', House, "house.toml")

    assert str(caught.value) == f"house.toml: {message}"


def test_text_that_is_no_toml_names_the_file_and_the_line() -> None:
    with pytest.raises(ConfigError, match=r"^policy\.toml: .*line 2"):
        decode_toml("number = 1\naccept_at = = 2", Policy, "policy.toml")


def test_a_policy_in_toml_needs_no_tag() -> None:
    assert decode_toml('number = 3\naccept_at = 0.9\ndoubtful = "unsure"', Policy, "policy.toml") == POLICY
