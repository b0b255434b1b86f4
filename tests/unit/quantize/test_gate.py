import pytest
from msgspec.structs import replace

from quantize.gate import Outcome, reasons_to_block

SOUND = Outcome(calibration_error=0.03, label_flips=0.01, accepted=0.4, error_among_accepted=0.10, witnesses=400)


def test_a_release_at_its_bounds_passes() -> None:
    assert reasons_to_block(SOUND) == ()


def test_every_bound_that_is_missed_is_named_with_what_was_found_and_wanted() -> None:
    missed = replace(SOUND, calibration_error=0.0474, label_flips=0.0123, error_among_accepted=0.16)

    assert reasons_to_block(missed) == (
        "calibration error: found 0.0474, wanted at most 0.0300",
        "labels that differ from the 16-bit model's: found 0.0123, wanted at most 0.0100",
        "wrong among the accepted: found 0.1600, wanted at most 0.1300",
    )


@pytest.mark.parametrize(("witnesses", "reasons"), [(20, 0), (400, 1)])
def test_few_accepted_events_may_be_wrong_more_often_by_chance(witnesses: int, reasons: int) -> None:
    assert len(reasons_to_block(replace(SOUND, error_among_accepted=0.15, witnesses=witnesses))) == reasons


def test_a_release_that_accepts_nothing_errs_in_nothing() -> None:
    assert reasons_to_block(replace(SOUND, accepted=0.0, error_among_accepted=0.0, witnesses=0)) == ()
