"""Temperature and bias."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.calibration import calibrate
from models.contracts.release import Calibration

LOGS = st.lists(st.floats(-800, 0), min_size=2, max_size=6).map(np.array)


@given(LOGS, st.floats(0.05, 20))
def test_probabilities_sum_to_one_and_keep_their_order(logs: np.ndarray, temperature: float) -> None:
    probabilities = calibrate(logs, Calibration(temperature=temperature))

    assert sum(probabilities) == pytest.approx(1)
    assert probabilities[int(np.argmax(logs))] == max(probabilities)


def test_temperature_divides_the_log_odds_and_bias_adds_to_them() -> None:
    first, second = calibrate(np.log([0.9, 0.1]), Calibration(temperature=2.0, bias=(0.0, 1.0)))

    assert np.log(first / second) == pytest.approx(np.log(9) / 2 - 1)
