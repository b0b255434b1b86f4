import numpy as np
import pytest

from models.contracts.release import Calibration
from quantize.calibrate import apply, choose_policy, expected_calibration_error, fit, softmax

NAMES = ("benign", "suspicious", "critical")


def overconfident(events: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities three times too sharp, and a last label that is said too often."""
    chance = np.random.default_rng(seed)
    true = chance.normal(size=(events, 3)) * 1.5
    labels = np.array([chance.choice(3, p=row) for row in softmax(true)])
    return np.log(softmax(3 * true + np.array([0.0, 0.0, 2.0]))), labels


def test_fitting_finds_the_temperature_and_the_bias_that_were_put_in() -> None:
    said, labels = overconfident(8_000, seed=1)

    found = fit(said, labels)

    assert found.temperature == pytest.approx(3.0, rel=0.05)
    assert found.bias[0] == pytest.approx(2 / 3, abs=0.1)
    assert found.bias[2] == 0.0


def test_calibrated_probabilities_of_other_events_mean_what_they_say() -> None:
    found = fit(*overconfident(5_000, seed=1))
    said, labels = overconfident(5_000, seed=2)

    assert expected_calibration_error(softmax(said), labels) > 0.1
    assert expected_calibration_error(apply(found, said), labels) < 0.02


def test_a_label_that_never_occurs_leaves_the_fit_finite() -> None:
    said, labels = overconfident(500, seed=3)

    assert np.isfinite(fit(said, np.where(labels == 1, 0, labels)).bias).all()


def test_no_calibration_leaves_probabilities_alone() -> None:
    said = np.log(np.array([[0.7, 0.2, 0.1]]))

    assert apply(Calibration(), said) == pytest.approx(np.exp(said))


def test_accepted_verdicts_err_at_most_as_often_as_asked() -> None:
    said, labels = overconfident(5_000, seed=4)
    probabilities = apply(fit(said, labels), said)

    policy = choose_policy(probabilities, np.full(len(labels), 0.9), labels, NAMES, max_error=0.05)

    thresholds = np.array([policy.accept_at_by_label[name] for name in NAMES])
    chosen = probabilities.argmax(axis=1)
    accepted = probabilities.max(axis=1) >= thresholds[chosen]
    assert accepted.mean() > 0.1
    assert (chosen != labels)[accepted].mean() <= 0.05
    assert policy.mass_floor == 0.9


def test_a_label_that_is_mostly_wrong_is_never_accepted() -> None:
    probabilities = np.tile([0.8, 0.1, 0.1], (200, 1))
    labels = np.array([0, 1] * 100)

    assert choose_policy(probabilities, np.ones(200), labels, NAMES, 0.05).accept_at_by_label["benign"] == 1.0
