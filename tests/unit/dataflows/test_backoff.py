from itertools import islice
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from dataflows.backoff import Backoff


def test_delays_double_up_to_the_most_and_go_on_for_ever() -> None:
    delays = Backoff(first_s=0.5, most_s=30, jitter=0).delays(Random(1))

    assert list(islice(delays, 9)) == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_bounded_attempts_have_one_delay_between_each() -> None:
    assert list(Backoff(first_s=1, jitter=0, attempts=3).delays(Random(1))) == [1, 2]


@given(st.integers(), st.floats(0, 1))
def test_jitter_only_ever_shortens_a_delay_and_by_no_more_than_its_share(seed: int, jitter: float) -> None:
    delays = list(Backoff(first_s=1, most_s=4, jitter=jitter, attempts=5).delays(Random(seed)))

    for delay, most in zip(delays, [1, 2, 4, 4], strict=True):
        assert most * (1 - jitter) <= delay <= most
