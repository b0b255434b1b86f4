"""A cascade is measured with thresholds that its own events did not choose."""

import numpy as np
import pytest

from bench.central.cascade import Both, curve, escalated, row_of_flips, rows_of, table, threshold, vendors_of

CONFIDENCES = np.array([0.9, 0.5, 0.7, 0.6])


@pytest.fixture
def both() -> Both:
    """A gateway that is right where it is sure, and a centre that is right nearly everywhere."""
    chance = np.random.default_rng(3)
    confidence = chance.uniform(size=2_000)
    centre = chance.uniform(size=2_000) < 0.9
    return Both(centre & (confidence > 0.1), centre, confidence, np.arange(2_000) // 10)


@pytest.mark.parametrize(
    ("share", "below"), [(0.0, []), (0.25, [0.5]), (0.3, [0.5]), (0.75, [0.5, 0.6, 0.7]), (1.0, [0.5, 0.6, 0.7, 0.9])]
)
def test_no_more_than_the_share_lies_below_a_threshold(share: float, below: list[float]) -> None:
    lowest = threshold(CONFIDENCES, share)

    assert sorted(one for one in CONFIDENCES if one < lowest) == below


def test_a_half_is_parted_by_the_threshold_of_the_other() -> None:
    confidence = np.array([0.1, 0.2, 0.3, 0.4, 0.25, 0.35, 0.5, 0.6])
    right = np.ones(8, dtype=np.bool_)
    both = Both(right, right, confidence, np.array([0, 0, 0, 0, 1, 1, 1, 1]))

    # Half of the first lies below 0.3, half of the second below 0.5.
    assert escalated(both, 0.5).tolist() == [True, True, True, True, True, False, False, False]


def test_all_events_of_a_vendor_are_in_one_half_and_every_half_has_some() -> None:
    products = [f"{vendor} {product}" for vendor in ("Acme", "Borealis", "Cumulus", "Dynamo") for product in "xyz"]
    vendors = vendors_of(products)

    assert [len(set(vendors[at : at + 3].tolist())) for at in range(0, 12, 3)] == [1, 1, 1, 1]
    assert np.bincount(vendors % 2).tolist() == [6, 6]


def test_a_cascade_that_asks_where_the_gateway_errs_keeps_what_the_centre_knows(both: Both) -> None:
    gain, kept, share = rows_of(both)

    assert (gain.name, gain.value, gain.passed) == ("cascade_gain", pytest.approx(0.09, abs=0.02), True)
    assert (kept.name, kept.value, kept.passed) == ("cascade_accuracy_kept", 1.0, True)
    assert (share.name, share.passed) == ("cascade_escalated", True)
    assert share.value == pytest.approx(0.135, abs=0.02)


def test_a_gateway_that_is_sure_where_it_errs_misses_the_target(both: Both) -> None:
    wrong_way = Both(both.gateway, both.centre, 1 - both.confidence, both.vendors)

    assert rows_of(wrong_way)[1].passed is False


def test_a_centre_that_is_no_better_for_sure_misses_the_target(both: Both) -> None:
    no_better = Both(both.centre, np.roll(both.centre, 1), both.confidence, both.vendors)

    assert rows_of(no_better)[0].passed is False


def test_flips_are_the_centre_s_and_stand_beside_those_of_the_gateway() -> None:
    attacked = np.arange(200)
    row = row_of_flips(attacked < 40, attacked < 10, attacked // 10)

    assert (row.name, row.value, row.unit) == ("cascade_injection_flips", pytest.approx(0.05), "share of 200")
    assert row.interval is not None
    assert row.interval[0] <= row.value <= row.interval[1]
    assert "on the same: 0.2000; difference -0.150" in (row.peer or "")


def test_the_curve_goes_from_the_gateway_alone_to_the_centre_alone(both: Both) -> None:
    points = curve(both)

    assert len(points) == 10
    assert (points[0].escalated, points[0].accuracy) == (0.0, pytest.approx(both.gateway.mean()))
    assert (points[-1].escalated, points[-1].kept, points[-1].at_random) == (1.0, 1.0, pytest.approx(1.0))
    assert all(point.kept >= point.at_random - 1e-9 for point in points)


def test_the_table_has_a_line_per_point(both: Both) -> None:
    lines = table(curve(both)).splitlines()

    assert len(lines) == 12
    assert lines[2].startswith("| 0.0 % | 0.8")
