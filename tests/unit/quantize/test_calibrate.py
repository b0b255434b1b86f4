import tracemalloc

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
    fit_and_choose,
    fit_by_folds,
    is_shown,
    left_out,
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

    found = fit(said[None], labels)

    assert found.temperature == pytest.approx(3.0, rel=0.05)
    assert found.bias[0] == pytest.approx(2 / 3, abs=0.1)
    assert found.bias[2] == 0.0


def test_calibrated_probabilities_of_other_events_mean_what_they_say() -> None:
    learnt, truth = overconfident(5_000, seed=1)
    found = fit(learnt[None], truth)
    said, labels = overconfident(5_000, seed=2)

    assert expected_calibration_error(softmax(said), labels) > 0.1
    assert expected_calibration_error(apply(found, said[None]), labels) < 0.02


def two_readers(events: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """What two say who each see the truth through noise of their own, the second through twice as much."""
    chance = np.random.default_rng(seed)
    labels = chance.integers(3, size=events)
    seen = [np.eye(3)[labels] + noise * chance.normal(size=(events, 3)) for noise in (0.5, 1.0)]
    # Of such noise the likelihood of a label is what is seen for it, over the variance.
    return np.stack([np.log(softmax(each)) for each in seen]), labels


def test_a_second_opinion_counts_as_far_as_it_knows_what_the_first_does_not() -> None:
    said, labels = two_readers(20_000, seed=1)
    others, truth = two_readers(20_000, seed=2)

    found = fit(said, labels)

    assert 1 / found.temperature == pytest.approx(4.0, rel=0.1)
    assert found.second_weight == pytest.approx(1.0, rel=0.1)
    alone = apply(fit(said[:1], labels), others[:1])
    assert (apply(found, others).argmax(axis=1) == truth).mean() > (alone.argmax(axis=1) == truth).mean() + 0.01
    assert expected_calibration_error(apply(found, others), truth) < 0.02


def test_a_second_opinion_that_only_repeats_the_first_changes_nothing() -> None:
    said, labels = overconfident(5_000, seed=4)

    alone = apply(fit(said[None], labels), said[None])

    twice = np.stack([said, said])
    assert apply(fit(twice, labels), twice) == pytest.approx(alone, abs=1e-3)


def test_a_second_opinion_that_knows_nothing_has_next_to_no_weight() -> None:
    said, labels = overconfident(5_000, seed=5)
    chance = np.log(softmax(np.random.default_rng(6).normal(size=said.shape)))

    assert abs(fit(np.stack([said, chance]), labels).second_weight) < 0.05


def test_a_label_that_never_occurs_leaves_the_fit_finite() -> None:
    said, labels = overconfident(500, seed=3)

    assert np.isfinite(fit(said[None], np.where(labels == 1, 0, labels)).bias).all()


def negative_log_likelihood(found: Calibration, said: np.ndarray, labels: np.ndarray) -> float:
    return float(-np.log(apply(found, said[None])[np.arange(len(labels)), labels]).mean())


def of_many_labels(
    events: int, seed: int, *, kinds: int = 12, bias: float = 0.0, clear: float = 2.0
) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities twice too sharp; with `bias` every other label is said too often."""
    chance = np.random.default_rng(seed)
    true = chance.normal(size=(events, kinds)) * clear
    labels = np.array([chance.choice(kinds, p=row) for row in softmax(true)])
    return np.log(softmax(2 * true + bias * (np.arange(kinds) % 2))), labels


def test_biases_that_there_is_too_little_to_fit_on_are_left_out() -> None:
    said, labels = of_many_labels(60, seed=1)
    others, truth = of_many_labels(2_000, seed=2)
    found = fit_by_folds(said[None], labels, np.arange(60))

    assert found.bias == ()
    assert found == fit(said[None], labels, biases=False)
    assert negative_log_likelihood(found, others, truth) < negative_log_likelihood(
        fit(said[None], labels), others, truth
    )


def test_biases_that_help_events_they_were_not_fitted_on_are_kept() -> None:
    said, labels = of_many_labels(500, seed=3, bias=4.0)
    found = fit_by_folds(said[None], labels, np.arange(len(labels)))

    assert len(found.bias) == 12
    assert found == fit(said[None], labels, biases=True)
    assert found.temperature == pytest.approx(2.0, rel=0.2)


def test_copies_of_an_event_are_never_fitted_on_and_asked() -> None:
    # Forty events six times: were copies parted, biases would seem to help.
    said, labels = of_many_labels(40, seed=4)
    copies, truth, witnesses = np.repeat(said, 6, axis=0), np.repeat(labels, 6), np.repeat(np.arange(40), 6)

    assert fit_by_folds(copies[None], truth, witnesses).bias == ()
    assert fit_by_folds(copies[None], truth, np.arange(len(truth))).bias != ()


def test_without_biases_only_the_temperature_is_fitted() -> None:
    said, labels = overconfident(3_000, seed=5)

    assert fit(said[None], labels, biases=False).bias == ()


def test_no_calibration_leaves_probabilities_alone() -> None:
    said = np.log(np.array([[0.7, 0.2, 0.1]]))

    assert apply(Calibration(), said[None]) == pytest.approx(np.exp(said))


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
    probabilities = apply(fit(said[None], labels), said[None])

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


def test_the_promise_holds_where_the_calibration_is_fitted_on_the_same_fold() -> None:
    rounds, max_error, names = 30, 0.3, [str(kind) for kind in range(20)]

    def events(number: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        return of_many_labels(number, seed, kinds=20, bias=4.0, clear=4.0)

    fresh, truth = events(4_000, seed=0)
    chosen, broken, broken_else = 0, 0, 0
    for seed in range(1, rounds + 1):
        said, labels = events(100, seed)
        masses, each = np.ones(100), np.arange(100)
        fitted, policy = fit_and_choose(said[None], masses, labels, each, names, max_error=max_error)
        untested = choose_policy(apply(fitted, said[None]), masses, labels, each, names, max_error=max_error)
        asked = apply(fitted, fresh[None])
        at, else_at = (accepted(one, asked, np.ones(len(asked)), names) for one in (policy, untested))
        wrong = asked.argmax(axis=1) != truth
        chosen += at.any()
        broken += at.any() and wrong[at].mean() > max_error
        broken_else += else_at.any() and wrong[else_at].mean() > max_error

    assert chosen > rounds / 3
    assert broken <= 0.1 * rounds
    assert broken_else > 0.1 * rounds  # by thresholds tested on the events that the calibration was fitted on


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


def test_thousands_of_events_show_what_the_normal_distribution_says() -> None:
    # 1.28 standard deviations, 15 each, below a tenth of 2,500 events: 230 and a bit.
    assert is_shown(229, 2_500, 0.1)
    assert not is_shown(232, 2_500, 0.1)
    assert not is_shown(250, 2_500, 0.1)


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


def many_labels(mostly_wrong: int | None) -> Policy:
    """Return the policy where two labels have been given often and rightly, twenty seldom, and one never."""
    given = np.concatenate([np.repeat([0, 1], 200), np.repeat(np.arange(2, 22), 10)])
    truth = given.copy()
    if mostly_wrong is not None:
        truth[np.flatnonzero(given == mostly_wrong)[:8]] = 0
    said = np.full((len(given), 23), 0.01 / 22)
    said[np.arange(len(given)), given] = 0.99
    names = [f"label {at}" for at in range(23)]
    return choose_policy(said, np.ones(len(given)), truth, np.arange(len(given)), names, max_error=MAX_ERROR)


def test_labels_that_are_given_seldom_and_rightly_have_a_threshold_in_common() -> None:
    policy = many_labels(mostly_wrong=None)

    assert len({policy.accepts_from(f"label {at}") for at in range(2, 22)}) == 1
    assert all(policy.accepts_from(f"label {at}") < NEVER for at in range(22))


def test_where_one_of_the_seldom_labels_is_mostly_wrong_none_of_them_is_accepted() -> None:
    policy = many_labels(mostly_wrong=5)

    assert all(policy.accept_at_by_label[f"label {at}"] == NEVER for at in range(2, 22))
    assert all(policy.accept_at_by_label[f"label {at}"] < NEVER for at in (0, 1))


def test_a_label_that_is_given_never_shares_with_the_seldom_ones_and_alone_is_never_accepted() -> None:
    policy, alone = many_labels(mostly_wrong=None), policy_for(np.tile([1.0, 0.0, 0.0], (200, 1)), np.zeros(200, int))

    assert policy.accept_at_by_label["label 22"] == policy.accept_at_by_label["label 2"]
    assert alone.accept_at_by_label["benign"] < NEVER
    assert alone.accept_at_by_label["critical"] == NEVER


@pytest.mark.parametrize("overconfident", [0.0, 0.1])
def test_the_calibration_error_is_that_of_the_model_and_not_that_of_chance(overconfident: float) -> None:
    chance = np.random.default_rng(3)
    found = []
    for _ in range(40):
        right = chance.uniform(0.5, 0.85, 500)
        labels = np.repeat((chance.random(500) >= right).astype(np.int64), 2)  # two copies of each
        said = np.repeat(right + overconfident, 2)
        error = calibration_error(np.stack((said, 1 - said), axis=1), labels, np.arange(1000) // 2)
        assert error is not None
        found.append(error.value)

    assert abs(float(np.mean(found)) - overconfident) < 0.02


def half_wrong(witnesses: int, copies: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Events that are all 99 % sure, and of which every other is wrong."""
    labels = np.repeat(np.arange(witnesses) % 2, copies)
    return np.tile([0.99, 0.01], (len(labels), 1)), labels, np.repeat(np.arange(witnesses), copies)


@pytest.mark.parametrize("overconfident", [0.0, 0.03, 0.1])
def test_the_calibration_error_of_nine_draws_in_ten_is_known_as_well_as_its_interval_says(overconfident: float) -> None:
    chance = np.random.default_rng(4)
    draws, held = 60, 0
    for _ in range(draws):
        right = chance.uniform(0.5, 0.85, 500)
        labels = (chance.random(500) >= right).astype(np.int64)
        said = right + overconfident
        error = calibration_error(np.stack((said, 1 - said), axis=1), labels, np.arange(500))
        assert error is not None
        assert error.low <= error.value <= error.high < 0.2
        held += error.low <= overconfident <= error.high

    assert held >= 0.9 * draws


@pytest.mark.parametrize("witnesses", [200, 400])
@pytest.mark.parametrize("copies", [1, 3])
def test_enough_witnesses_show_a_calibration_error(witnesses: int, copies: int) -> None:
    error = calibration_error(*half_wrong(witnesses, copies))

    assert error is not None
    assert error.low > 0.3


@pytest.mark.parametrize("witnesses", [1, 2, 10, 100, 199])
def test_of_too_few_witnesses_the_calibration_error_is_not_told(witnesses: int) -> None:
    assert calibration_error(*half_wrong(witnesses, copies=40)) is None


def fitted_by_features(said: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return slope and biases by Newton's method over features that are written out: one of the slope, one per bias."""
    events, kinds = said.shape
    features = np.zeros((events, kinds, kinds))
    features[:, :, 0] = said
    for kind in range(kinds - 1):
        features[:, kind, kind + 1] = 1.0
    ridge = np.diag([1.0, *[1e-2] * (kinds - 1)])
    weights = as_said = np.eye(kinds)[0]

    def loss(weights: np.ndarray) -> float:
        right = softmax(features @ weights)[np.arange(events), labels]
        return float(-np.log(right).sum() + 0.5 * (weights - as_said) @ ridge @ (weights - as_said))

    for _ in range(100):
        of = softmax(features @ weights)
        mean = np.einsum("nkm,nk->nm", features, of)
        slope = (mean - features[np.arange(events), labels]).sum(axis=0) + ridge @ (weights - as_said)
        curve = np.einsum("nkm,nk,nkl->ml", features, of, features, optimize=True) - mean.T @ mean + ridge
        move = np.linalg.solve(curve, slope)
        while loss(weights - move) > loss(weights) and np.abs(move).max() > 1e-9:
            move = move / 2
        weights = weights - move
    return weights


@pytest.mark.parametrize(("events", "kinds", "bias"), [(40, 3, 0.0), (200, 5, 2.0), (300, 12, 4.0), (60, 20, 0.0)])
def test_the_fit_is_that_of_features_written_out(events: int, kinds: int, bias: float) -> None:
    said, labels = of_many_labels(events, seed=events, kinds=kinds, bias=bias)
    slope, *biases = fitted_by_features(said, labels)

    found = fit(said[None], labels)

    assert found.temperature == pytest.approx(1 / slope, abs=1.5e-6)  # half of one is rounding
    assert found.bias == pytest.approx((*biases, 0.0), abs=1.5e-6)


def test_a_fit_of_many_labels_needs_no_table_of_events_by_labels_by_labels() -> None:
    said, labels = of_many_labels(400, seed=6, kinds=256)
    tracemalloc.start()
    fit(said[None], labels)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert most < said.nbytes * 256 / 8


def test_what_was_left_out_had_no_say_in_its_own_probabilities() -> None:
    said, labels = of_many_labels(120, seed=7, bias=4.0)
    witnesses = np.arange(120) // 2
    before = left_out(said[None], labels, witnesses)
    others = labels.copy()
    others[witnesses == 8] = (labels[witnesses == 8] + 1) % 12

    after = left_out(said[None], others, witnesses)

    assert after[witnesses == 8] == pytest.approx(before[witnesses == 8])
    assert np.abs(after - before).max() > 1e-6


def test_a_calibration_seems_better_on_what_it_was_fitted_on_than_on_what_was_left_out() -> None:
    said, labels = of_many_labels(200, seed=8, bias=4.0)
    right = np.arange(len(labels)), labels

    mine = apply(fit_by_folds(said[None], labels, np.arange(200)), said[None])
    others = left_out(said[None], labels, np.arange(200))

    assert np.log(mine[right]).mean() > np.log(others[right]).mean() + 0.02


def test_of_one_witness_there_is_nothing_else_to_fit_on() -> None:
    said, labels = overconfident(6, seed=9)

    assert left_out(said[None], labels, np.zeros(6, int)) == pytest.approx(softmax(said))
    assert np.isfinite(left_out(said[None], labels, np.arange(6) // 3)).all()


def test_a_few_events_that_are_all_right_do_not_make_everything_certain() -> None:
    chance = np.random.default_rng(3)
    labels = np.arange(36) % 3
    scores = chance.normal(size=(36, 3))
    scores[np.arange(36), labels] = scores.max(axis=1) + 0.5

    assert fit(np.log(softmax(scores))[None], labels, biases=False).temperature > 0.1
