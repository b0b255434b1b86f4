from hypothesis import given
from hypothesis import strategies as st

from dataflows.operators.decode import decode_records
from dataflows.operators.repeats import Repeats, Window
from models.contracts.event import Event
from tests.fakes.records import batch


def events(*numbers: int) -> list[Event]:
    return [event for n in numbers for event in decode_records(batch("text", start=n)).events]


def fresh(window: Window, *numbers: int) -> list[int]:
    return [int(event.id.removeprefix("o.")) for event in window.fresh(events(*numbers))]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_only_the_first_of_an_id_passes_within_a_batch_and_after_it() -> None:
    window = Window(Repeats(), Clock())

    assert fresh(window, 1, 2, 1, 3) == [1, 2, 3]
    assert fresh(window, 3, 4, 2) == [4]


def test_an_id_is_forgotten_when_it_is_older_than_the_window() -> None:
    clock = Clock()
    window = Window(Repeats(window_s=10), clock)
    fresh(window, 1)

    clock.now = 10.0
    assert fresh(window, 1) == []
    clock.now = 10.1
    assert fresh(window, 1) == [1]


def test_an_id_is_remembered_while_it_is_among_the_last_and_forgotten_soon_after() -> None:
    window = Window(Repeats(window_events=3), Clock())
    for n in range(4):
        fresh(window, n)

    assert fresh(window, 1) == []
    assert fresh(window, 0) == [0]


def test_a_window_of_nothing_still_drops_repeats_within_a_batch() -> None:
    window = Window(Repeats(window_events=0), Clock())

    assert fresh(window, 1, 1) == [1]
    assert fresh(window, 1) == [1]


@given(st.lists(st.lists(st.integers(0, 30), max_size=8), max_size=30), st.integers(0, 20))
def test_memory_is_bounded_by_the_window_and_one_batch(batches: list[list[int]], size: int) -> None:
    window = Window(Repeats(window_events=size), Clock())

    for numbers in batches:
        passed = fresh(window, *numbers)
        assert len(passed) == len(set(passed))
        assert set(passed) <= set(numbers)
        assert len(window) <= size + 2 * 8


def test_batches_of_nothing_but_repeats_take_no_memory() -> None:
    window = Window(Repeats(), Clock())
    fresh(window, 1)

    for _ in range(100):
        fresh(window, 1)

    assert len(window._batches) == 1


@given(st.lists(st.lists(st.integers(0, 9), max_size=5), max_size=20))
def test_a_window_that_is_large_enough_lets_each_id_pass_once(batches: list[list[int]]) -> None:
    window = Window(Repeats(), Clock())

    passed = [n for numbers in batches for n in fresh(window, *numbers)]

    assert passed == list(dict.fromkeys(n for numbers in batches for n in numbers))
