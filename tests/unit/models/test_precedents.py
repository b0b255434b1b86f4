"""What is guessed from an event's like: never more than a guess, so the worst of it is that it is wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.precedents import Precedents

FIRST = "sshd: Failed password for root from 192.0.2.7 port 40022 ssh2"
SECOND = "sshd: Failed password for root from 198.51.100.23 port 512 ssh2"


def test_values_are_taken_from_where_they_stood_and_choices_as_they_are() -> None:
    precedents = Precedents()
    precedents.remember(
        FIRST, {"source": ("192.0.2.7",), "technique": ("T1110",), "observable": ("root", "port 40022")}
    )

    assert precedents.likely(SECOND) == {
        "source": ("198.51.100.23",),
        "technique": ("T1110",),
        "observable": ("root", "port 512"),
    }


def test_another_form_has_no_precedent_and_an_event_without_values_has_an_empty_one() -> None:
    precedents = Precedents()
    precedents.remember(FIRST, {})

    assert precedents.likely(FIRST.replace("root", "admin")) is None
    assert precedents.likely(SECOND) == {}


def test_the_last_event_of_a_form_is_its_precedent() -> None:
    precedents = Precedents()
    precedents.remember(FIRST, {"source": ("192.0.2.7",)})
    precedents.remember(SECOND, {"observable": ("root",)})

    assert precedents.likely(FIRST) == {"observable": ("root",)}


def test_a_value_is_not_looked_for_inside_a_longer_number() -> None:
    precedents = Precedents()
    precedents.remember("job 1104 took 10 s", {"observable": ("10",)})

    assert precedents.likely("job 2 took 345 s") == {"observable": ("345",)}


def test_the_forms_that_came_last_are_remembered_and_no_long_ones() -> None:
    precedents = Precedents()
    forms = [f"event {'x' * number}" for number in range(1, 400)] + [
        f"other {'y' * number}" for number in range(1, 400)
    ]
    for form in forms:
        precedents.remember(form, {})
        assert precedents.likely(forms[0]) is not None  # used, so kept
    precedents.remember("z" * 5000, {})

    assert precedents.likely("z" * 5000) is None
    assert sum(precedents.likely(form) is not None for form in forms) == 512


@given(st.text(alphabet="ab01 .", max_size=30), st.data())
def test_an_event_is_its_own_precedent(body: str, data: st.DataObject) -> None:
    begin = data.draw(st.integers(0, len(body)))
    value = body[begin : data.draw(st.integers(begin, len(body)))]
    precedents = Precedents()
    precedents.remember(body, {"observable": (value,)})

    assert precedents.likely(body) == {"observable": (value,)}


@pytest.mark.parametrize("other", ["", "1", "a", "a1b", FIRST[:-1]])
def test_any_text_may_be_asked_about(other: str) -> None:
    precedents = Precedents()
    precedents.remember(FIRST, {"source": ("192.0.2.7",)})

    assert precedents.likely(other) is None
