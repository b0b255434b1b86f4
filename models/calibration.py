"""Log-probabilities to probabilities that mean what they say: temperature, bias and a second opinion. Pure.

Guo et al. 2017, On Calibration of Modern Neural Networks.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from models.contracts.release import Calibration

Floats = npt.NDArray[np.float64]

_LEAST = 1e-12  # a probability that has a logarithm


def calibrate(
    log_probabilities: Floats, calibration: Calibration, second: Sequence[float] | None = None
) -> tuple[float, ...]:
    """Return softmax(log p / temperature + bias); it sums to 1. `second` are a second opinion's probabilities."""
    scores = log_probabilities / calibration.temperature
    if calibration.bias:
        scores = scores + np.asarray(calibration.bias)
    if second is not None:
        scores = scores + calibration.second_weight * logarithms(np.asarray(second))
    weights = np.exp(scores - scores.max())
    return tuple((weights / weights.sum()).tolist())


def logarithms(probabilities: Floats) -> Floats:
    """Return their logarithms; that of 0 is finite, so that who is certain can still be outvoted."""
    found: Floats = np.log(probabilities + _LEAST)
    return found
