"""What a quantized model said of events it never learnt from, to probabilities that mean what they say. Pure."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr
from sklearn.model_selection import GroupKFold

from models.contracts.policy import NEVER, Policy
from models.contracts.release import Calibration
from quantize.measure import Estimate

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
Flags = NDArray[np.bool_]

_FOLDS = 5
_FEWEST_WITNESSES = 50  # for more than a temperature
_ROUNDS = 100
_CLOSE = 1e-9
_RIDGE = 1e-2  # keeps a bias finite where a label is never, or always, right
_SLOPE_RIDGE = 1.0  # a few dozen events, all of them right, are no proof that everything is certain
_CONFIDENCE = 0.9  # that a chosen threshold keeps what is promised
_MARGIN = 0.01  # above the threshold that passed: a batch's shape moves a 4-bit model's probability by as much
_TESTED_HUNDREDTHS = range(98, 33, -1)  # with its margin the highest is still below `NEVER`
_MASS_QUANTILE = 0.001
_BINS = 15
_FEWEST_TO_TELL = 200  # witnesses: of fewer, chance hides what a calibration error is
_DEVIATIONS = 1.96  # on either side of an interval of 95 %


def fit_by_folds(log_probabilities: Floats, labels: Labels, witnesses: Labels) -> Calibration:
    """Return a temperature, with biases only where they help witnesses that they were not fitted on.

    `log_probabilities` are of shape (readers, events, labels): what the release's own network said and, where another
    is asked for a second opinion, what that one said.

    A bias per label is soon fitted to chance: with 77 labels and a few events of each it makes things worse.
    """
    if len(np.unique(witnesses)) < _FEWEST_WITNESSES:
        return fit(log_probabilities, labels, biases=False)

    def loss_left_out(*, biases: bool) -> float:
        said = _in_turn(
            log_probabilities,
            witnesses,
            lambda learnt: fit(log_probabilities[:, learnt], labels[learnt], biases=biases),
        )
        return float(-np.log(said[np.arange(len(labels)), labels] + _CLOSE).mean())

    return fit(log_probabilities, labels, biases=loss_left_out(biases=True) < loss_left_out(biases=False))


def left_out(log_probabilities: Floats, labels: Labels, witnesses: Labels) -> Floats:
    """Return probabilities, each by a calibration that was fitted without the event's witness, biases and all.

    What a calibration says of the events that it was fitted on looks better than it is. Of one witness nothing is left
    to fit on: its probabilities are as the model said them.
    """
    if len(np.unique(witnesses)) < 2:
        return softmax(log_probabilities[0])
    return _in_turn(
        log_probabilities,
        witnesses,
        lambda learnt: fit_by_folds(log_probabilities[:, learnt], labels[learnt], witnesses[learnt]),
    )


def _in_turn(log_probabilities: Floats, witnesses: Labels, fitted: Callable[[Labels], Calibration]) -> Floats:
    """Return probabilities by what `fitted` makes of the other parts' events, whose numbers it is handed."""
    said = np.zeros(log_probabilities.shape[1:])
    parts = GroupKFold(min(_FOLDS, len(np.unique(witnesses))))
    for learnt, asked in parts.split(said, groups=witnesses):
        said[asked] = apply(fitted(learnt), log_probabilities[:, asked])
    return said


def fit(log_probabilities: Floats, labels: Labels, *, biases: bool = True) -> Calibration:
    """Return the temperature, and with `biases` one bias per label, of least negative log-likelihood.

    The loss is convex in the slopes (the inverse temperature, and the weight of a second opinion) and the biases, so a
    few Newton steps find it. It is drawn a little towards what the model said, which is felt where events are few.
    """
    readers, _, kinds = log_probabilities.shape
    # One slope per reader, one weight per label but the last, whose bias is 0: only differences count.
    biased = kinds - 1 if biases else 0
    own = log_probabilities[:, np.arange(len(labels)), labels].sum(axis=1)
    occurring = np.bincount(labels, minlength=kinds)[:biased]
    ridge = np.diag([*[_SLOPE_RIDGE] * readers, *[_RIDGE] * biased])
    weights = as_said = np.eye(readers + biased)[0]  # the own network's slope 1, no second opinion, no bias
    loss = _loss(log_probabilities, weights, labels, ridge)
    for _ in range(_ROUNDS):
        # The features behind the weights, a log-probability and a 1 for its label, are never written out: events by
        # labels by labels are more than memory holds.
        said = softmax(_scores(log_probabilities, weights))
        given = said[:, :biased]
        weighted = said * log_probabilities
        mean = weighted.sum(axis=2)
        slope = np.concatenate((mean.sum(axis=1) - own, given.sum(axis=0) - occurring)) + ridge @ (weights - as_said)
        curve = ridge.copy()
        curve[:readers, :readers] += np.einsum("rnk,snk->rs", weighted, log_probabilities) - mean @ mean.T
        curve[:readers, readers:] += weighted[:, :, :biased].sum(axis=1) - mean @ given
        curve[readers:, :readers] = curve[:readers, readers:].T
        curve[readers:, readers:] += np.diag(given.sum(axis=0)) - given.T @ given
        move = np.linalg.solve(curve + 1e-9 * np.eye(len(weights)), slope)
        # Far from the minimum a whole step overshoots: halve it until it helps.
        while (nearer := _loss(log_probabilities, weights - move, labels, ridge)) > loss and np.abs(
            move
        ).max() > _CLOSE:
            move = move / 2
        if np.abs(move).max() <= _CLOSE:
            break
        weights, loss = weights - move, nearer
    inverse = max(float(weights[0]), 1e-3)
    bias = (*(round(float(one), 6) for one in weights[readers:]), 0.0) if biases else ()
    second = round(float(weights[1:readers].sum()), 6)  # of one, or of none
    return Calibration(temperature=round(1 / inverse, 6), bias=bias, second_weight=second)


def _scores(log_probabilities: Floats, weights: Floats) -> Floats:
    """Return the logits by the readers' slopes and, where there are more weights, biases of all labels but the last."""
    readers = len(log_probabilities)
    scores: Floats = np.tensordot(weights[:readers], log_probabilities, axes=1)
    scores[:, : len(weights) - readers] += weights[readers:]
    return scores


def _loss(log_probabilities: Floats, weights: Floats, labels: Labels, ridge: Floats) -> float:
    scores = _scores(log_probabilities, weights)
    top = scores.max(axis=1, keepdims=True)
    moved = weights - np.eye(len(weights))[0]
    log_sum = np.log(np.exp(scores - top).sum(axis=1)) + top[:, 0]
    return float((log_sum - scores[np.arange(len(labels)), labels]).sum() + 0.5 * moved @ ridge @ moved)


def apply(calibration: Calibration, log_probabilities: Floats) -> Floats:
    bias = np.array(calibration.bias) if calibration.bias else 0.0
    own, *second = log_probabilities
    return softmax(own / calibration.temperature + bias + sum(calibration.second_weight * each for each in second))


def softmax(scores: Floats) -> Floats:
    shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
    result: Floats = shifted / shifted.sum(axis=1, keepdims=True)
    return result


def expected_calibration_error(probabilities: Floats, labels: Labels, bins: int = _BINS) -> float:
    """Return the mean gap between confidence and accuracy over bins of equally many events."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    order = np.argsort(confidence, kind="stable")
    gaps = [
        abs(confidence[part].mean() - right[part].mean()) * len(part)
        for part in np.array_split(order, bins)
        if len(part)
    ]
    return float(sum(gaps) / len(labels))


def calibration_error(probabilities: Floats, labels: Labels, witnesses: Labels) -> Estimate | None:
    """Return the root mean square gap between confidence and accuracy, less what chance adds to it.

    Chance opens gaps under a model that is never wrong about itself: with a thousand witnesses in 15 bins its ECE
    comes to 0.04. The variance of each gap is therefore taken off its square (Kumar et al., "Verified Uncertainty
    Calibration", 2019); events of one witness are no independent ones, so it is the variance over witnesses.

    How uncertain it still is the interval says: the square of a gap varies by four times that square times the gap's
    variance (delta method). Of too few witnesses nothing is returned: a model that is too sure by 0.1 shows at most
    0.03 in one of three draws of 100 witnesses, in one of six of 200, in one of thirty of 400.
    """
    if len(np.unique(witnesses)) < _FEWEST_TO_TELL:
        return None
    gaps = probabilities.max(axis=1) - (probabilities.argmax(axis=1) == labels)
    total, of_total, counted = 0.0, 0.0, 0
    for part in np.array_split(np.argsort(probabilities.max(axis=1), kind="stable"), _BINS):
        who, at = np.unique(witnesses[part], return_inverse=True)
        if len(who) < 2:  # one, with many events, says nothing of the variance
            continue
        mean = gaps[part].mean()
        around = np.bincount(at, weights=gaps[part] - mean)
        variance = float((around**2).sum()) / len(part) ** 2 * len(who) / (len(who) - 1)
        total += (mean**2 - variance) * len(part)
        of_total += 4 * mean**2 * variance * len(part) ** 2
        counted += len(part)
    far = _DEVIATIONS * math.sqrt(of_total)
    value, low, high = (math.sqrt(max(0.0, square / counted)) for square in (total, total - far, total + far))
    return Estimate(value, low, high)


def fit_and_choose(
    log_probabilities: Floats,
    masses: Floats,
    labels: Labels,
    witnesses: Labels,
    names: Sequence[str],
    *,
    max_error: float,
) -> tuple[Calibration, Policy]:
    """Return the calibration by all events, and a policy whose thresholds were tested on what is `left_out`.

    On the events that it was fitted on, a calibration seems surer and righter than it will be on others: thresholds
    that were tested on these would promise too much.
    """
    tested = left_out(log_probabilities, labels, witnesses)
    policy = choose_policy(tested, masses, labels, witnesses, names, max_error=max_error)
    return fit_by_folds(log_probabilities, labels, witnesses), policy


def choose_policy(
    probabilities: Floats, masses: Floats, labels: Labels, witnesses: Labels, names: Sequence[str], *, max_error: float
) -> Policy:
    """Return, per label, how low a threshold these events show to be safe; a label without one is never accepted.

    Promised, for each label by itself: of ten calibrations with fresh events, nine choose a threshold from which on at
    most `max_error` of the label's verdicts are wrong, for events that come as these did. They did not come as a
    gateway's do: a guarantee there needs a uniform sample of its own. Events with the same number in `witnesses` are
    near copies and count as one; how many of the witnesses are wrong is rounded up. That witnesses of one vendor are
    alike, too, is left out: over hundreds of vendors intervals come out a little wider. Labels that the model gives so
    seldom that nothing could be shown of them have a threshold in common, and the promise holds for them together.

    Fixed-sequence testing (Angelopoulos et al., Learn then Test): thresholds are tested from high to low, each by the
    Clopper-Pearson bound, until one fails. So no threshold is chosen for being lucky.
    """
    chosen = probabilities.argmax(axis=1)
    confidence = probabilities.max(axis=1)
    wrong = labels != chosen
    lowest = _TESTED_HUNDREDTHS[-1] / 100
    given = [len(np.unique(witnesses[(chosen == index) & (confidence >= lowest)])) for index in range(len(names))]
    seldom = [index for index, count in enumerate(given) if not is_shown(1, count, max_error)]

    def threshold(mine: Flags) -> float:
        return _threshold(confidence[mine], wrong[mine], witnesses[mine], max_error)

    of_seldom = threshold(np.isin(chosen, seldom))
    thresholds = {
        name: of_seldom if index in seldom else threshold(chosen == index) for index, name in enumerate(names)
    }
    return Policy(
        number=1,
        accept_at=max(thresholds.values()),
        accept_at_by_label=thresholds,
        mass_floor=_down(float(np.quantile(masses, _MASS_QUANTILE))),
        doubtful="review",
    )


def accepted(policy: Policy, probabilities: Floats, masses: Floats, names: Sequence[str]) -> Flags:
    """Return which verdicts the policy accepts."""
    thresholds = np.array([policy.accepts_from(name) for name in names])
    reached = probabilities.max(axis=1) >= thresholds[probabilities.argmax(axis=1)]
    return np.asarray(reached & (masses >= policy.mass_floor), dtype=np.bool_)


def _threshold(confidence: Floats, wrong: Flags, witnesses: Labels, max_error: float) -> float:
    passed = NEVER
    for hundredths in _TESTED_HUNDREDTHS:
        threshold = hundredths / 100
        at = confidence >= threshold
        seen = len(np.unique(witnesses[at]))
        if not is_shown(1, seen, max_error):
            continue  # so few that one error would end the test; skipped for their number and not for what is right
        if not is_shown(math.ceil(round(wrong[at].mean() * seen, 6)), seen, max_error):
            break
        passed = round(threshold + _MARGIN, 2)
    return passed


def is_shown(wrong: int, seen: int, max_error: float) -> bool:
    """Return whether `wrong` of `seen` bound the error: the upper Clopper-Pearson limit is at most `max_error`.

    In other words: an error of `max_error` would seldom have shown so few.
    """
    # Of more wrong than seen the binomial distribution has no tail: `nan`, which is not at most anything.
    return bool(bdtr(wrong, seen, max_error) <= 1 - _CONFIDENCE)


def _down(share: float) -> float:
    return int(share * 1000) / 1000
