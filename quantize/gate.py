"""A release's figures against their bounds: every reason to hold it back, or none. Pure."""

import math

from msgspec import Struct

MAX_CALIBRATION_ERROR = 0.03  # after quantization
MAX_LABEL_FLIPS = 0.01  # of the labels
MAX_ERROR = 0.10  # among the accepted verdicts of one label; six hundred templates cannot show much less
_DEVIATIONS = 2  # of sampling error above `MAX_ERROR`: what a sound release shows by chance


class Outcome(Struct, frozen=True):
    """What a release did on events that were held out."""

    calibration_error: float  # root mean square, less what chance adds
    label_flips: float  # share of the labels that differ from the 16-bit model's
    accepted: float  # share of the events
    error_among_accepted: float
    witnesses: int  # accepted events that are no near copies of one another


def reasons_to_block(outcome: Outcome) -> tuple[str, ...]:
    """Return what misses its bound, a sentence each."""
    sampling_error = math.sqrt(MAX_ERROR * (1 - MAX_ERROR) / max(1, outcome.witnesses))
    bounds = (
        ("calibration error", outcome.calibration_error, MAX_CALIBRATION_ERROR),
        ("labels that differ from the 16-bit model's", outcome.label_flips, MAX_LABEL_FLIPS),
        ("wrong among the accepted", outcome.error_among_accepted, MAX_ERROR + _DEVIATIONS * sampling_error),
    )
    return tuple(
        f"{what}: found {found:.4f}, wanted at most {most:.4f}" for what, found, most in bounds if found > most
    )
