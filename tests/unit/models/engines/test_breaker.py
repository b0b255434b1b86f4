"""When an engine is given up, and when it is looked for again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.engines.breaker import (
    Asked,
    Broken,
    Closed,
    Fact,
    Failed,
    Looking,
    Open,
    Opened,
    Patience,
    State,
    Trying,
    step,
)

PATIENCE = Patience(misses=8, first_s=1.0, most_s=30.0)


def after(state: State, *facts: Fact) -> State:
    for fact in facts:
        state = step(state, fact, PATIENCE, 0.0)
    return state


def test_an_engine_that_misses_as_many_events_in_a_row_as_it_may_is_given_up() -> None:
    assert after(Closed(), Asked(0, 3), Asked(0, 4)) == Closed(missed=7)
    assert after(Closed(), Asked(0, 3), Asked(0, 5)) == Open(delay_s=1.0)


def test_one_answer_in_a_batch_is_enough_to_go_on() -> None:
    assert after(Closed(missed=7), Asked(1, 63)) == Closed()


def test_a_batch_without_an_event_says_nothing() -> None:
    assert after(Closed(missed=7), Asked(0, 0)) == Closed(missed=7)


def test_an_engine_that_says_it_is_gone_is_given_up_at_once() -> None:
    assert after(Closed(), Broken()) == Open(delay_s=1.0)


def test_it_is_looked_for_ever_more_seldom_and_no_less_often_than_that() -> None:
    state, waits = after(Closed(), Broken()), []
    for _ in range(8):
        assert isinstance(state, Open)
        waits.append(state.delay_s)
        state = after(state, Looking(), Failed())

    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


def test_an_engine_that_is_back_has_all_of_its_patience_again() -> None:
    assert after(Trying(tries=5), Opened()) == Closed()
    assert after(Trying(tries=5), Opened(), Broken()) == Open(delay_s=1.0)


def test_chance_takes_off_a_quarter_of_a_delay_at_most() -> None:
    assert step(Closed(), Broken(), PATIENCE, 1.0) == Open(delay_s=0.75)


@pytest.mark.parametrize(
    ("state", "fact"),
    [
        (Closed(missed=3), Opened()),
        (Closed(missed=3), Failed()),
        (Closed(missed=3), Looking()),
        (Open(delay_s=1.0), Asked(1, 0)),
        (Open(delay_s=1.0), Broken()),
        (Open(delay_s=1.0), Opened()),
        (Trying(tries=2), Asked(0, 64)),
        (Trying(tries=2), Broken()),
        (Trying(tries=2), Looking()),
    ],
)
def test_a_fact_that_comes_late_changes_nothing(state: State, fact: Fact) -> None:
    assert after(state, fact) == state


@given(
    st.lists(
        st.one_of(
            st.builds(Asked, st.integers(0, 3), st.integers(0, 9)),
            st.sampled_from([Broken(), Looking(), Opened(), Failed()]),
        )
    ),
    st.floats(0, 1),
)
def test_whatever_happens_no_wait_is_longer_than_the_longest_or_none(facts: list[Fact], chance: float) -> None:
    state: State = Closed()
    for fact in facts:
        state = step(state, fact, PATIENCE, chance)
        if isinstance(state, Open):
            assert 0.75 <= state.delay_s <= PATIENCE.most_s
