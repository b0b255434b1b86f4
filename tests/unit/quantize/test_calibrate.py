import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.contracts.policy import NEVER, Policy
from models.contracts.release import Calibration
from quantize.calibrate import (
    accepted,
    apply,
    calibration_error,
    choose_policy,
    expected_calibration_error,
    fit,
    fit_by_folds,
    is_shown,
    softmax,
)

NAMES = ("benign", "suspicious", "critical")
MAX_ERROR = 0.05


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


def negative_log_likelihood(found: Calibration, said: np.ndarray, labels: np.ndarray) -> float:
    return float(-np.log(apply(found, said)[np.arange(len(labels)), labels]).mean())


def of_many_labels(events: int, seed: int, *, kinds: int = 12, bias: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities twice too sharp; with `bias` every other label is said too often."""
    chance = np.random.default_rng(seed)
    true = chance.normal(size=(events, kinds)) * 2
    labels = np.array([chance.choice(kinds, p=row) for row in softmax(true)])
    return np.log(softmax(2 * true + bias * (np.arange(kinds) % 2))), labels


def test_biases_that_there_is_too_little_to_fit_on_are_left_out() -> None:
    said, labels = of_many_labels(60, seed=1)
    others, truth = of_many_labels(2_000, seed=2)
    found = fit_by_folds(said, labels, np.arange(60))

    assert found.bias == ()
    assert found == fit(said, labels, biases=False)
    assert negative_log_likelihood(found, others, truth) < negative_log_likelihood(fit(said, labels), others, truth)


def test_biases_that_help_events_they_were_not_fitted_on_are_kept() -> None:
    said, labels = of_many_labels(500, seed=3, bias=4.0)
    found = fit_by_folds(said, labels, np.arange(len(labels)))

    assert len(found.bias) == 12
    assert found == fit(said, labels, biases=True)
    assert found.temperature == pytest.approx(2.0, rel=0.2)


def test_copies_of_an_event_are_never_fitted_on_and_asked() -> None:
    # Forty events six times: were copies parted, biases would seem to help.
    said, labels = of_many_labels(40, seed=4)
    copies, truth, witnesses = np.repeat(said, 6, axis=0), np.repeat(labels, 6), np.repeat(np.arange(40), 6)

    assert fit_by_folds(copies, truth, witnesses).bias == ()
    assert fit_by_folds(copies, truth, np.arange(len(truth))).bias != ()


def test_without_biases_only_the_temperature_is_fitted() -> None:
    said, labels = overconfident(3_000, seed=5)

    assert fit(said, labels, biases=False).bias == ()


def test_no_calibration_leaves_probabilities_alone() -> None:
    said = np.log(np.array([[0.7, 0.2, 0.1]]))

    assert apply(Calibration(), said) == pytest.approx(np.exp(said))


def policy_for(
    probabilities: np.ndarray, labels: np.ndarray, witnesses: np.ndarray | None = None, max_error: float = MAX_ERROR
) -> Policy:
    each = np.arange(len(labels)) if witnesses is None else witnesses
    return choose_policy(probabilities, np.full(len(labels), 0.9), labels, each, NAMES, max_error=max_error)


def said_and_right(events: int, chance: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of the first label, mostly high, and labels that are right as often as these say."""
    confidence = 0.34 + 0.66 * chance.beta(6, 1, events)
    labels = np.where(chance.random(events) < confidence, 0, 1)
    return np.stack([confidence, (1 - confidence) / 2, (1 - confidence) / 2], axis=1), labels


def test_accepted_verdicts_err_at_most_as_often_as_asked() -> None:
    said, labels = overconfident(5_000, seed=4)
    probabilities = apply(fit(said, labels), said)

    policy = policy_for(probabilities, labels, max_error=0.15)
    at = accepted(policy, probabilities, np.full(len(labels), 0.9), NAMES)

    assert at.mean() > 0.2
    assert (probabilities.argmax(axis=1) != labels)[at].mean() <= 0.15
    assert policy.mass_floor == 0.9


def test_thresholds_of_one_fold_hold_on_events_that_were_not_looked_at_nine_times_of_ten() -> None:
    chance = np.random.default_rng(5)
    rounds, broken, chosen = 300, 0, 0
    fresh, truth = said_and_right(400_000, chance)
    for _ in range(rounds):
        threshold = policy_for(*said_and_right(300, chance)).accept_at_by_label["benign"]
        chosen += threshold < NEVER
        broken += threshold < NEVER and (truth != 0)[fresh[:, 0] >= threshold].mean() > MAX_ERROR

    assert chosen > rounds / 3
    assert broken <= 0.1 * rounds


def test_a_label_that_is_mostly_wrong_is_never_accepted() -> None:
    probabilities = np.tile([1.0, 0.0, 0.0], (200, 1))
    policy = policy_for(probabilities, np.array([0, 1] * 100))

    assert policy.accept_at_by_label["benign"] == NEVER
    assert not accepted(policy, probabilities, np.ones(200), NAMES).any()


@pytest.mark.parametrize(
    ("wrong", "seen", "shown"),
    # Limits of a table: 1 - 0.1 ** (1 / n) for none wrong, and the beta quantiles for some.
    [(0, 44, False), (0, 45, True), (1, 76, False), (1, 77, True), (5, 183, False), (5, 184, True), (0, 0, False)],
)
def test_few_errors_show_a_small_error_only_where_enough_was_seen(wrong: int, seen: int, shown: bool) -> None:  # noqa: FBT001
    assert is_shown(wrong, seen, 0.05) == shown


FEW_EVENTS = st.lists(st.tuples(st.floats(0.34, 1.0), st.booleans()), min_size=1, max_size=30)


def of_the_first_label(events: list[tuple[float, bool]], times: int) -> tuple[np.ndarray, np.ndarray]:
    confidence = np.repeat([confidence for confidence, _ in events], times)
    rest = (1 - confidence) / 2
    return np.stack([confidence, rest, rest], axis=1), np.repeat([0 if right else 1 for _, right in events], times)


@given(FEW_EVENTS, st.integers(1, 40))
def test_a_chosen_threshold_leaves_its_margin_and_shows_its_error(events: list[tuple[float, bool]], times: int) -> None:
    probabilities, labels = of_the_first_label(events, times)

    threshold = policy_for(probabilities, labels).accept_at_by_label["benign"]

    assert 0.34 < threshold <= NEVER
    if threshold < NEVER:
        tested = probabilities[:, 0] >= round(threshold - 0.01, 2)
        assert is_shown(int((labels[tested] != 0).sum()), int(tested.sum()), MAX_ERROR)


@given(FEW_EVENTS, st.integers(5, 40), st.data())
def test_one_more_error_never_lowers_a_threshold(
    events: list[tuple[float, bool]], times: int, data: st.DataObject
) -> None:
    probabilities, labels = of_the_first_label(events, times)
    worse = labels.copy()
    worse[data.draw(st.integers(0, len(labels) - 1))] = 2

    before, after = policy_for(probabilities, labels), policy_for(probabilities, worse)

    assert after.accept_at_by_label["benign"] >= before.accept_at_by_label["benign"]


@given(FEW_EVENTS, st.integers(2, 50))
def test_copies_of_an_event_show_no_more_than_the_event(events: list[tuple[float, bool]], times: int) -> None:
    probabilities, labels = of_the_first_label(events, times)

    policy = policy_for(probabilities, labels, witnesses=np.repeat(np.arange(len(events)), times))

    assert set(policy.accept_at_by_label.values()) == {NEVER}  # 30 events at most, and 77 are needed


@pytest.mark.parametrize("overconfident", [0.0, 0.1])
def test_the_calibration_error_is_that_of_the_model_and_not_that_of_chance(overconfident: float) -> None:
    chance = np.random.default_rng(3)
    found = []
    for _ in range(40):
        right = chance.uniform(0.5, 0.85, 500)
        labels = np.repeat((chance.random(500) >= right).astype(np.int64), 2)  # two copies of each
        said = np.repeat(right + overconfident, 2)
        found.append(calibration_error(np.stack((said, 1 - said), axis=1), labels, np.arange(1000) // 2))

    assert abs(float(np.mean(found)) - overconfident) < 0.02
