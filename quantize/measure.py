"""Opinions against the truth: what is written on the card. Pure."""

from collections.abc import Mapping, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray


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


def macro_f1(scores: Mapping[str, LabelScores]) -> float:
    return float(np.mean([score.f1 for score in scores.values()]))


def field_scores(
    given: Sequence[Mapping[str, Sequence[str]]], wanted: Sequence[Mapping[str, Sequence[str]]], names: Sequence[str]
) -> dict[str, FieldScores]:
    """Compare exact values, field by field, over the events handed in."""
    scores = {}
    for name in names:
        pairs = [(set(mine.get(name, ())), set(right.get(name, ()))) for mine, right in zip(given, wanted, strict=True)]
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
