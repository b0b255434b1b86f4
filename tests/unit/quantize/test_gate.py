from typing import Any

import pytest
from msgspec.structs import fields, replace

from quantize.figures import Figures, Injections, Peer
from quantize.gate import N_GRAMS, limits_of, reasons_to_block
from quantize.measure import Estimate
from quantize.recipe import Base, Compression, Gate
from tests.fakes import measured

SET = Gate(
    max_calibration_error=0.03,
    max_label_flips=0.01,
    max_error_among_accepted=0.10,
    min_accuracy=0.70,
    min_macro_f1=0.68,
    min_gain_over_n_grams=0.03,
    min_gain_over_second_opinion=0.0,
    max_injection_flips=0.05,
    max_quiet_false_alarms=0.05,
    min_foreign_auroc=0.95,
)


def estimate(value: float) -> Estimate:
    return Estimate(value, value - 0.2, value + 0.2)


def figures(**changes: Any) -> Figures:
    """A release at all its limits, as near as figures are written."""
    at_the_limits = measured.figures(
        calibration_error=estimate(0.03),
        label_flips=0.01,
        accepted_witnesses=400,
        error_among_accepted=0.13,  # the limit and two deviations of 400 witnesses
        accuracy=estimate(0.70),
        macro_f1=estimate(0.68),
        peers=[Peer(N_GRAMS, 0.6, 0.65)],
        injections=Injections(cases=1_000, flips=0.05),
        quiet_false_alarms=estimate(0.05),
        foreign_auroc=0.95,
        gain_over_second=Estimate(0.02, 0.0, 0.04),
    )
    return replace(at_the_limits, **changes)


def test_a_release_at_its_limits_passes() -> None:
    assert reasons_to_block(figures(macro_f1=estimate(0.6801)), SET) == ()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"calibration_error": estimate(0.0474)}, "calibration error: found 0.0474, wanted at most 0.0300"),
        ({"label_flips": 0.0123}, "labels that differ from the 16-bit model's: found 0.0123, wanted at most 0.0100"),
        ({"error_among_accepted": 0.16}, "wrong among the accepted: found 0.1600, wanted at most 0.1300"),
        (
            {"injections": Injections(cases=1_000, flips=0.051)},
            "events that an injected text made milder: found 0.0510, wanted at most 0.0500",
        ),
        (
            {"quiet_false_alarms": estimate(0.06)},
            "false alarms on plain operation: found 0.0600, wanted at most 0.0500",
        ),
        ({"accuracy": estimate(0.699)}, "accuracy: found 0.6990, wanted at least 0.7000"),
        (
            {"macro_f1": estimate(0.67), "peers": [Peer(N_GRAMS, 0.5, 0.5)]},
            "macro-F1: found 0.6700, wanted at least 0.6800",
        ),
        ({"peers": [Peer(N_GRAMS, 0.6, 0.66)]}, "macro-F1 above the n-grams': found 0.0201, wanted at least 0.0300"),
        (
            {"gain_over_second": Estimate(0.02, -0.001, 0.041)},
            "accuracy above the second opinion's alone, at least: found -0.0010, wanted at least 0.0000",
        ),
        ({"foreign_auroc": 0.94}, "AUROC of the label mass against foreign text: found 0.9400, wanted at least 0.9500"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_limit_that_is_missed_is_named_with_what_was_found_and_wanted(changes: dict[str, Any], reason: str) -> None:
    at_the_limits = {"macro_f1": estimate(0.6801)}

    assert reasons_to_block(figures(**(at_the_limits | changes)), SET) == (reason,)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"injections": None}, "events that an injected text made milder"),
        ({"quiet_false_alarms": None}, "false alarms on plain operation"),
        ({"peers": [Peer("majority", 0.4, 0.2)]}, "macro-F1 above the n-grams'"),
        ({"foreign_auroc": None}, "AUROC of the label mass against foreign text"),
        ({"gain_over_second": None}, "accuracy above the second opinion's alone, at least"),
    ],
)
def test_a_limit_for_what_was_not_measured_is_missed(changes: dict[str, Any], what: str) -> None:
    (reason,) = reasons_to_block(figures(**({"macro_f1": estimate(0.6801)} | changes)), SET)

    assert reason.startswith(f"{what}: not measured, wanted at ")


def test_a_model_that_came_finished_differs_from_no_16_bit_one() -> None:
    assert reasons_to_block(figures(macro_f1=estimate(0.6801), label_flips=None), SET) == ()


def test_all_limits_that_are_missed_are_named() -> None:
    bad = figures(
        calibration_error=estimate(1.0),
        label_flips=1.0,
        error_among_accepted=1.0,
        injections=None,
        quiet_false_alarms=None,
        accuracy=estimate(0.0),
        macro_f1=estimate(0.0),
        foreign_auroc=0.5,
        gain_over_second=None,
    )

    assert len(reasons_to_block(bad, SET)) == len(fields(Gate))


def test_a_limit_that_is_not_set_does_not_bind() -> None:
    bad = figures(
        accuracy=estimate(0.0),
        macro_f1=estimate(0.0),
        peers=[],
        injections=Injections(cases=9, flips=1.0),
        quiet_false_alarms=estimate(1.0),
        foreign_auroc=0.0,
    )

    assert reasons_to_block(bad, Gate()) == ()


@pytest.mark.parametrize(("witnesses", "reasons"), [(20, 0), (400, 1)])
def test_few_accepted_events_may_be_wrong_more_often_by_chance(witnesses: int, reasons: int) -> None:
    found = figures(error_among_accepted=0.15, accepted_witnesses=witnesses)

    assert len(reasons_to_block(found, Gate())) == reasons


def test_a_release_that_accepts_nothing_errs_in_nothing() -> None:
    assert reasons_to_block(figures(accepted=0.0, error_among_accepted=0.0, accepted_witnesses=0), Gate()) == ()


def test_a_figure_that_is_no_number_passes_no_limit() -> None:
    assert len(reasons_to_block(figures(error_among_accepted=float("nan")), SET)) == 1


@pytest.mark.parametrize(
    ("base", "reasons"),
    [
        (
            Base(kind="encoder", path="folder"),
            (
                "megabytes: found 469.0000, wanted at most 25.0000",
                "events a second on one thread: found 2.0000, wanted at least 60.0000",
            ),
        ),
        (Base(kind="gguf", path="instruct.gguf"), ()),
    ],
    ids=lambda value: value.kind if isinstance(value, Base) else "",
)
def test_size_and_speed_hold_back_what_was_compressed_and_not_a_finished_model(
    base: Base, reasons: tuple[str, ...]
) -> None:
    recipe = measured.recipe(base=base, quantization=Compression(max_megabytes=25.0, min_events_per_s=60.0))
    large = figures(macro_f1=estimate(0.6801), megabytes=469.0, events_per_s=2.0)

    assert reasons_to_block(large, SET, limits_of(recipe)) == reasons
