"""What a quantized model said of events it never learnt from, to probabilities that mean what they say. Pure."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.contracts.policy import Policy
from models.contracts.release import Calibration

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

_ROUNDS = 100
_CLOSE = 1e-9
_RIDGE = 1e-2  # keeps a bias finite where a label is never, or always, right
_ACCEPTED_AT_LEAST = 30  # fewer accepted events say nothing about an error of 5 %
_MASS_QUANTILE = 0.001


def fit(log_probabilities: Floats, labels: Labels) -> Calibration:
    """Return the temperature and the biases of least negative log-likelihood.

    The loss is convex in the inverse temperature and the biases, so a few Newton steps find it.
    """
    events, kinds = log_probabilities.shape
    # One feature for the shared slope, one per label but the last, whose bias is 0: only differences count.
    features = np.zeros((events, kinds, kinds))
    features[:, :, 0] = log_probabilities
    for kind in range(kinds - 1):
        features[:, kind, kind + 1] = 1.0
    ridge = np.diag([0.0, *[_RIDGE] * (kinds - 1)])
    weights = np.eye(kinds)[0]  # slope 1, no bias: as the model said it
    loss = _loss(features, weights, labels, ridge)
    for _ in range(_ROUNDS):
        said = softmax(features @ weights)
        mean = np.einsum("nkm,nk->nm", features, said)
        slope = (mean - features[np.arange(events), labels]).sum(axis=0) + ridge @ weights
        curve = np.einsum("nkm,nk,nkl->ml", features, said, features, optimize=True) - mean.T @ mean + ridge
        move = np.linalg.solve(curve + 1e-9 * np.eye(kinds), slope)
        # Far from the minimum a whole step overshoots: halve it until it helps.
        while (nearer := _loss(features, weights - move, labels, ridge)) > loss and np.abs(move).max() > _CLOSE:
            move = move / 2
        if np.abs(move).max() <= _CLOSE:
            break
        weights, loss = weights - move, nearer
    inverse = max(float(weights[0]), 1e-3)
    bias = (*(round(float(one), 6) for one in weights[1:]), 0.0)
    return Calibration(temperature=round(1 / inverse, 6), bias=bias)


def _loss(features: Floats, weights: Floats, labels: Labels, ridge: Floats) -> float:
    scores = features @ weights
    top = scores.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(scores - top).sum(axis=1)) + top[:, 0]
    return float((log_sum - scores[np.arange(len(labels)), labels]).sum() + 0.5 * weights @ ridge @ weights)


def apply(calibration: Calibration, log_probabilities: Floats) -> Floats:
    bias = np.array(calibration.bias) if calibration.bias else 0.0
    return softmax(log_probabilities / calibration.temperature + bias)


def softmax(scores: Floats) -> Floats:
    shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
    result: Floats = shifted / shifted.sum(axis=1, keepdims=True)
    return result


def expected_calibration_error(probabilities: Floats, labels: Labels, bins: int = 15) -> float:
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


def choose_policy(
    probabilities: Floats, masses: Floats, labels: Labels, names: Sequence[str], max_error: float
) -> Policy:
    """Return, per label, the lowest threshold from which on at most `max_error` of the accepted verdicts are wrong.

    A label that no threshold serves is never accepted. The thresholds hold on these events; a guarantee for others
    needs a uniform sample of the gateway's own.
    """
    chosen = probabilities.argmax(axis=1)
    confidence = probabilities.max(axis=1)
    thresholds = {}
    for index, name in enumerate(names):
        mine = chosen == index
        thresholds[name] = _threshold(confidence[mine], (labels == index)[mine], max_error)
    return Policy(
        number=1,
        accept_at=max(thresholds.values()),
        accept_at_by_label=thresholds,
        mass_floor=_down(float(np.quantile(masses, _MASS_QUANTILE))),
        doubtful="review",
    )


def _threshold(confidence: Floats, right: NDArray[np.bool_], max_error: float) -> float:
    order = np.argsort(-confidence, kind="stable")
    wrong_share = np.cumsum(~right[order]) / np.arange(1, len(order) + 1)
    passing = np.flatnonzero(wrong_share <= max_error)
    passing = passing[passing + 1 >= _ACCEPTED_AT_LEAST]
    if not len(passing):
        return 1.0
    # Rounded up, and half a hundredth of margin is not needed twice: a batch's shape moves a probability by less.
    return min(1.0, round(float(confidence[order][passing[-1]]) + 0.0005, 3))


def _down(share: float) -> float:
    return int(share * 1000) / 1000
