"""The bound on how often a template is wrong is Clopper's and Pearson's."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta

from dataflows.cache.bound import CONFIDENCE, audits_needed, upper_bound


@given(st.integers(1, 100_000), st.data())
def test_the_bound_is_the_quantile_of_the_beta_distribution(audits: int, data: st.DataObject) -> None:
    disagreements = data.draw(st.integers(0, audits - 1))

    exact = beta.ppf(CONFIDENCE, disagreements + 1, audits - disagreements)

    assert upper_bound(audits, disagreements) == pytest.approx(exact, rel=1e-6)


def test_nothing_is_known_without_audits_or_where_all_disagreed() -> None:
    assert upper_bound(0, 0) == 1.0
    assert upper_bound(7, 7) == 1.0


@given(st.floats(1e-6, 0.999))
def test_so_many_audits_that_agree_are_enough_and_one_less_is_not(bound: float) -> None:
    needed = audits_needed(bound)

    assert upper_bound(needed, 0) <= bound * (1 + 1e-9)
    assert needed == 1 or upper_bound(needed - 1, 0) > bound * (1 - 1e-9)


@pytest.mark.parametrize("bound", [0.0, 1.0])
def test_no_bound_asks_for_no_audits(bound: float) -> None:
    assert audits_needed(bound) == 0


def test_a_bound_on_a_million_audits_costs_milliseconds() -> None:
    begun = time.process_time()
    upper_bound(1_000_000, 1_000)

    assert time.process_time() - begun < 0.2
