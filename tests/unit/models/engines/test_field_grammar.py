"""Fields that an engine writes under a grammar, and what of them is believed."""

import pytest

from models.contracts.task import Field, Label, Task
from models.engines.field_grammar import grammar_of, values_of
from tests.fakes.tiny_models import TASK

EVENT = "sshd: Failed password for root from 192.0.2.7 port 51122"


def written(source: str = "-", technique: str = "-", observable: str = "-") -> str:
    return f"\nsource: {source}\ntechnique: {technique}\nobservable: {observable}\n"


def test_the_grammar_has_a_line_for_each_field_and_ends_with_a_line_end() -> None:
    assert grammar_of(TASK).splitlines() == [
        r'root ::= "\nsource:" field0 "\ntechnique:" field1 "\nobservable:" field2 "\n"',
        'field0 ::= " -" | value0',
        r'value0 ::= " " [^;\r\n\t ] [^;\r\n]{0,127}',
        'field1 ::= " -" | value1',
        'value1 ::= " T1110" | " T1190"',
        'field2 ::= " -" | value2 (";" value2){0,2}',
        r'value2 ::= " " [^;\r\n\t ] [^;\r\n]{0,127}',
    ]


def test_a_choice_with_quotes_or_letters_of_any_script_is_written_as_it_is() -> None:
    field = Field(name="kind", description="", kind="choice", choices=('say "no"', "Störung", "a\\b"))
    task = Task(
        name="t",
        instruction="",
        labels=(Label("a", ""), Label("b", "")),
        default_label="a",
        fields=(field,),
        fields_for=("a",),
    )

    assert grammar_of(task).splitlines()[-1] == r'value0 ::= " say \"no\"" | " Störung" | " a\\b"'


def test_values_that_stand_in_the_event_are_found_and_absent_ones_are_none() -> None:
    assert values_of(TASK, written("192.0.2.7", "T1110", "root; sshd"), EVENT) == (
        {"source": ("192.0.2.7",), "technique": ("T1110",), "observable": ("root", "sshd")},
        0,
    )
    assert values_of(TASK, written(), EVENT) == ({}, 0)


@pytest.mark.parametrize("invented", ["203.0.113.9", "192.0.2", "oot", "Root"])
def test_a_value_that_the_event_does_not_hold_is_dropped_and_counted(invented: str) -> None:
    assert values_of(TASK, written(invented, "T1110"), EVENT) == ({"technique": ("T1110",)}, 1)


def test_a_value_that_was_written_twice_is_one() -> None:
    assert values_of(TASK, written(observable="root; root; sshd"), EVENT) == ({"observable": ("root", "sshd")}, 0)


BEGUN = "\nsource: 192.0.2.7\ntechnique: T1110\nobservable: root"
TWO = {"source": ("192.0.2.7",), "technique": ("T1110",)}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"{BEGUN}; 192.0", ({**TWO, "observable": ("root",)}, 1)),
        (BEGUN, (TWO, 1)),
        ("\nsource: 192.0.2.7\ntechn", ({"source": ("192.0.2.7",)}, 0)),
        ("\nsource:", ({}, 1)),
        ("", ({}, 0)),
        ("nonsense\n\n;;;-\n", ({}, 0)),
    ],
)
def test_what_was_cut_short_is_believed_up_to_its_last_whole_value(text: str, found: object) -> None:
    assert values_of(TASK, text, EVENT) == found
