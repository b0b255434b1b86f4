"""Log-probabilities to probabilities that mean what they say: temperature and bias. Pure.

Guo et al. 2017, On Calibration of Modern Neural Networks.
"""

import numpy as np
import numpy.typing as npt

from models.contracts.release import Calibration


def calibrate(log_probabilities: npt.NDArray[np.float64], calibration: Calibration) -> tuple[float, ...]:
    """Return softmax(log p / temperature + bias); it sums to 1."""
    scores = log_probabilities / calibration.temperature
    if calibration.bias:
        scores = scores + np.asarray(calibration.bias)
    weights = np.exp(scores - scores.max())
    return tuple((weights / weights.sum()).tolist())
