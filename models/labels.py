"""The labels as a tree of tokens, and what a model's logits at its branches say about each label. Pure.

A label may be spelled in several ways (with and without a space in front) and each spelling may take several tokens.
The tree of all spellings is asked at its root and wherever it branches; a step without a choice counts as certain,
since asking there costs a pass over the event and could only tell that the model meant a word that is no answer.

The raw probability of a spelling is the product of its tokens' shares of the full softmax at those places; that of a
label is the sum over its spellings; the label mass is the sum over all labels, and dividing by it gives probabilities
that sum to 1.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from models.contracts.errors import InputError, UntrustedError

Float64s = npt.NDArray[np.float64]


class Question(Struct, frozen=True):
    """A place in the tree where the model is asked what comes next."""

    path: tuple[int, ...]  # the tokens that lead there from the end of the prompt
    answers: npt.NDArray[np.int32]


class LabelTree:
    """Which rows of logits to ask for behind a text, and how to read them."""

    def __init__(
        self, names: Sequence[str], spellings: Sequence[Sequence[Sequence[int]]], *, most: int | None = None
    ) -> None:
        """Build the tree from each label's spellings in tokens; a question has no more than `most` answers.

        Raises:
            UntrustedError: the vocabulary cannot tell two labels apart.
        """
        kept = [_shortest(ways) for ways in spellings]
        owners: dict[tuple[int, ...], str] = {}
        for name, ways in zip(names, kept, strict=True):
            for way in ways:
                if owners.setdefault(way, name) != name:
                    raise UntrustedError(f"labels `{owners[way]}` and `{name}` are the same tokens; rename one")
        children: dict[tuple[int, ...], set[int]] = {(): set()}
        for way, name in owners.items():
            if not way:
                raise UntrustedError(f"label `{name}`: this vocabulary has no tokens for it")
            for depth, token in enumerate(way):
                children.setdefault(way[:depth], set()).add(token)
                if way[:depth] in owners:
                    raise UntrustedError(
                        f"label `{owners[way[:depth]]}` is how label `{name}` begins, token for token; rename one"
                    )
        places = sorted(path for path, tokens in children.items() if not path or len(tokens) > 1)
        self.questions = tuple(
            Question(path, np.array(answers, np.int32))
            for path in places
            for answers in _shares(sorted(children[path]), most)
        )
        self._ways = [[self._steps(way) for way in ways] for ways in kept]

    def read(self, answers: Sequence[Float64s]) -> Float64s:
        """Return the log of each label's raw probability, from the log-probabilities of each question's answers."""
        labels = [[sum(answers[place][answer] for place, answer in steps) for steps in ways] for ways in self._ways]
        return np.array([float(np.logaddexp.reduce(ways)) for ways in labels])

    def _steps(self, way: tuple[int, ...]) -> list[tuple[int, int]]:
        """Return where in the answers to which questions the tokens of a spelling stand."""
        return [
            (place, int(np.searchsorted(question.answers, way[len(question.path)])))
            for place, question in enumerate(self.questions)
            if way[: len(question.path)] == question.path and way[len(question.path)] in question.answers
        ]


def _shortest(ways: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """Return the distinct spellings but for those that only go on where another ends."""
    distinct = {tuple(way) for way in ways}
    return sorted(way for way in distinct if not any(way[:depth] in distinct for depth in range(len(way))))


def _shares(answers: list[int], most: int | None) -> Iterator[list[int]]:
    return (answers[at : at + (most or len(answers))] for at in range(0, len(answers), most or len(answers)))


def log_totals(logits: npt.NDArray[np.float32]) -> Float64s:
    """Return the log of each row's sum of exponentials: a logit minus it is a log-probability under the full softmax.

    Raises:
        InputError: the model answers with something that is no number.
    """
    top = logits.max(axis=1, keepdims=True)
    if not np.isfinite(top).all():  # NaN wins any maximum
        raise InputError("the model's logits are not numbers; its weights are damaged, or this text breaks it")
    totals: Float64s = top[:, 0] + np.log(np.exp(logits - top).sum(axis=1, dtype=np.float64))
    return totals
