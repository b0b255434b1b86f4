"""Opinions against the truth, with intervals: what is written on the card and in the report. Pure."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

Labels = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

_RESAMPLES = 400
_BOOTSTRAP_SEED = 17
_TAIL = 0.025  # on either side of an interval of 95 %


class Estimate(Struct, frozen=True):
    """A figure, and between which values it lies with 95 % confidence, over witnesses."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


class Bin(Struct, frozen=True):
    """Events of like confidence."""

    confidence: float
    accuracy: float
    events: int


class SourceScores(Struct, frozen=True):
    """How the release did on the events of one product or source."""

    source: str
    events: int
    accuracy: float
    macro_f1: float  # over the labels that occur there


class LabelScores(Struct, frozen=True):
    precision: float
    recall: float
    f1: float
    events: int


class FieldScores(Struct, frozen=True):
    """Over values: how many of those given were right, how many of those wanted were given."""

    precision: float
    recall: float
    wanted: int


def label_scores(chosen: NDArray[np.int64], labels: NDArray[np.int64], names: Sequence[str]) -> dict[str, LabelScores]:
    scores = {}
    for index, name in enumerate(names):
        right = int(((chosen == index) & (labels == index)).sum())
        precision = right / max(1, int((chosen == index).sum()))
        recall = right / max(1, int((labels == index).sum()))
        scores[name] = LabelScores(precision, recall, _f1(precision, recall), int((labels == index).sum()))
    return scores


def field_scores(
    given: Sequence[Mapping[str, Sequence[str]]],
    wanted: Sequence[Mapping[str, Sequence[str]]],
    names: Sequence[str],
    *,
    annotated: bool = True,
) -> dict[str, FieldScores]:
    """Compare exact values, field by field, over the events handed in.

    With `annotated`, what has no value in `wanted` has none; without, somebody left it out, and it is not counted.
    """
    scores = {}
    for name in names:
        pairs = [(set(mine.get(name, ())), set(right.get(name, ()))) for mine, right in zip(given, wanted, strict=True)]
        if not annotated:
            pairs = [(mine, right) for mine, right in pairs if right]
        both = sum(len(mine & right) for mine, right in pairs)
        said, true = sum(len(mine) for mine, _ in pairs), sum(len(right) for _, right in pairs)
        scores[name] = FieldScores(both / max(1, said), both / max(1, true), true)
    return scores


def with_a_wrong_value(
    given: Sequence[Mapping[str, Sequence[str]]], wanted: Sequence[Mapping[str, Sequence[str]]]
) -> float:
    """Return the share of the events of which a field has a value that is invented, or belongs to another field."""
    wrong = [
        any(set(values) - set(right.get(name, ())) for name, values in mine.items())
        for mine, right in zip(given, wanted, strict=True)
    ]
    return sum(wrong) / max(1, len(wrong))


def _f1(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def accuracy(chosen: Labels, labels: Labels) -> float:
    return float((chosen == labels).mean())


def macro_f1_of(chosen: Labels, labels: Labels, kinds: int) -> float:
    """Return the mean F1 over all labels; one that neither occurs nor is given counts 0."""
    right = np.bincount(labels[chosen == labels], minlength=kinds)
    both = np.bincount(chosen, minlength=kinds) + np.bincount(labels, minlength=kinds)
    return float((2 * right / np.maximum(1, both)).mean())


def estimate(statistic: Callable[[Labels], float], witnesses: Labels) -> Estimate:
    """Return what `statistic` says of all events, and of resamples of the witnesses.

    It is handed the numbers of the events that it is to count. Events of one witness are near copies, so they are
    drawn together (cluster bootstrap: Davison and Hinkley, Bootstrap Methods, 1997, 3.8).
    """
    value = statistic(np.arange(len(witnesses)))
    low, high = _ends(statistic, witnesses)
    return _around(value, low, high)


def estimate_of_error(statistic: Callable[[Labels], float], witnesses: Labels, right: Flags | None = None) -> Estimate:
    """Return the same for a gap, which chance only widens: a resample's is as far above ours as ours above the truth.

    So its resamples are reflected at the value (basic bootstrap: the same, 5.2); a gap is at least 0. Where all of what
    is `right`, or none, is so by chance, confidence lies as far from the truth as that may lie from what was seen.
    """
    value = statistic(np.arange(len(witnesses)))
    low, high = _ends(statistic, witnesses)
    low, high = 2 * value - high, 2 * value - low
    if right is not None and (right.all() or not right.any()):
        far = _seen_by_chance(witnesses)
        low, high = min(low, value - far), max(high, far - value)
    return _around(value, max(0.0, low), max(0.0, high))


def estimate_of_share(flags: Flags, witnesses: Labels) -> Estimate:
    """Return the share of the events that are so.

    Where all are, or none, so are all resamples, and would make it seem certain.
    """
    return opened(estimate(lambda at: float(flags[at].mean()), witnesses), flags, witnesses)


def estimate_of_macro_f1(chosen: Labels, labels: Labels, witnesses: Labels, kinds: int) -> Estimate:
    """Return the mean F1 over all labels.

    That a rare label is not drawn says nothing of how well it is told: a resample's is the mean over labels that occur
    in it. Labels that occur in no event, nor are given to one, count 0 in the figure and so in its interval. Where all
    events are right, or none, its open end is that of as large a share of them.
    """
    share = _occurring(chosen, labels) / kinds

    def of(at: Labels) -> float:
        mine, true = chosen[at], labels[at]
        return share * macro_f1_of(mine, true, kinds) * kinds / _occurring(mine, true)

    return opened(estimate(of, witnesses), chosen == labels, witnesses)


def opened(found: Estimate, right: Flags, witnesses: Labels) -> Estimate:
    """Return an interval with its open end where all events are `right`, or none."""
    if not right.any():
        return Estimate(found.value, found.low, _seen_by_chance(witnesses))
    if right.all():
        return Estimate(found.value, found.value * (1 - _seen_by_chance(witnesses)), found.high)
    return found


def _seen_by_chance(witnesses: Labels) -> float:
    """Return the share of which as many witnesses, each of its own, show nothing in 2.5 of 100 cases.

    It is the open end of Clopper and Pearson's interval.
    """
    return float(1 - _TAIL ** (1 / len(np.unique(witnesses))))


def _occurring(chosen: Labels, labels: Labels) -> int:
    """Return how many labels there are among what was chosen and what is true."""
    return len(np.unique(np.concatenate([chosen, labels])))


def _around(value: float, low: float, high: float) -> Estimate:
    """Return the value in its interval: where resamples lean to one side, they may leave it outside."""
    return Estimate(value, min(low, value), max(high, value))


def _ends(statistic: Callable[[Labels], float], witnesses: Labels) -> tuple[float, float]:
    """Return between which values the statistic of 95 % of the resamples lies."""
    order = np.argsort(witnesses, kind="stable")
    _, starts, counts = np.unique(witnesses[order], return_index=True, return_counts=True)
    chance = np.random.default_rng(_BOOTSTRAP_SEED)
    drawn = []
    for _ in range(_RESAMPLES):
        picked = chance.integers(0, len(starts), len(starts))
        sizes = counts[picked]
        offsets = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        drawn.append(statistic(order[np.repeat(starts[picked], sizes) + offsets]))
    low, high = np.quantile(drawn, (_TAIL, 1 - _TAIL))
    return float(low), float(high)


def confusion(chosen: Labels, labels: Labels, kinds: int) -> list[list[int]]:
    """Return how many events of each label, by row, got which, by column."""
    table = np.zeros((kinds, kinds), np.int64)
    np.add.at(table, (labels, chosen), 1)
    return [[int(count) for count in row] for row in table]


def reliability(probabilities: Floats, labels: Labels, bins: int = 15) -> list[Bin]:
    """Return equally many events to a bin, by rising confidence."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    parts = np.array_split(np.argsort(confidence, kind="stable"), bins)
    return [Bin(float(confidence[part].mean()), float(right[part].mean()), len(part)) for part in parts if len(part)]


def by_source(chosen: Labels, labels: Labels, sources: Sequence[str], kinds: int) -> list[SourceScores]:
    """Return a row per source, the largest first."""
    events: dict[str, list[int]] = defaultdict(list)
    for at, source in enumerate(sources):
        events[source].append(at)
    rows = []
    for source, members in events.items():
        mine, true = chosen[members], labels[members]
        f1 = macro_f1_of(mine, true, kinds) * kinds / _occurring(mine, true)
        rows.append(SourceScores(source, len(members), accuracy(mine, true), f1))
    return sorted(rows, key=lambda row: (-row.events, row.source))


def auroc(of_the_task: Floats, foreign: Floats) -> float:
    """Return how often an event of the task has a higher value than a foreign text; ties count half."""
    truth = np.concatenate([np.ones(len(of_the_task)), np.zeros(len(foreign))])
    return float(roc_auc_score(truth, np.concatenate([of_the_task, foreign])))
