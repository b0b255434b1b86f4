import math

import numpy as np
import pytest

from quantize.round_trip import Logits, gap

NAMED_FLOOR, NAMED_SHARE = 0.1, 0.01  # as the module states them


def logits(*values: float) -> Logits:
    return np.array(values, dtype=np.float32)


def moved(theirs: Logits, by: float) -> Logits:
    return theirs + np.array([by, *[0.0] * (theirs.size - 1)], dtype=np.float32)


@pytest.mark.parametrize("spread", [0.0, 1.0, 9.0, 11.0, 80.0, 4_000.0])
@pytest.mark.parametrize("level", [-50.0, 0.0, 200.0])
def test_logits_may_lie_apart_by_a_share_of_their_spread_and_by_a_tenth_in_any_case(
    spread: float, level: float
) -> None:
    theirs = logits(level, level + spread, level + spread / 3)
    bound = max(NAMED_FLOOR, NAMED_SHARE * spread)

    assert gap(moved(theirs, -0.95 * bound), theirs).share <= 1
    assert gap(moved(theirs, 1.05 * bound), theirs).share > 1


def test_how_far_and_how_far_they_may_is_told() -> None:
    found = gap(logits(-30.5, 0.0, 49.0), logits(-30.0, 0.0, 50.0))

    assert (found.apart, found.allowed) == (pytest.approx(1.0), pytest.approx(0.8))


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_what_is_no_finite_number_is_too_far_on_either_side(wrong: float) -> None:
    right, broken = logits(1.0, 2.0, 3.0), logits(1.0, wrong, 3.0)

    assert gap(broken, right).share == math.inf
    assert gap(right, broken).share == math.inf
    assert gap(broken, broken).share == math.inf
