"""The label tree: where the model is asked, and what its answers say."""

import numpy as np
import pytest

from models.contracts.errors import InputError, UntrustedError
from models.labels import LabelTree, log_totals


def test_labels_that_differ_at_once_are_one_question() -> None:
    tree = LabelTree(["a", "b"], [[[5, 6, 7]], [[3]]])

    assert [(question.path, question.answers.tolist()) for question in tree.questions] == [((), [3, 5])]
    assert np.exp(tree.read([np.log([0.2, 0.6])])).tolist() == pytest.approx([0.6, 0.2])


def test_labels_that_begin_alike_are_asked_again_where_they_part_and_the_answers_multiplied() -> None:
    tree = LabelTree(["warn", "warp", "ok"], [[[1, 2, 3]], [[1, 2, 4]], [[9]]])

    assert [question.path for question in tree.questions] == [(), (1, 2)]
    raw = np.exp(tree.read([np.log([0.5, 0.3]), np.log([0.6, 0.2])]))
    assert raw.tolist() == pytest.approx([0.5 * 0.6, 0.5 * 0.2, 0.3])


def test_the_spellings_of_a_label_are_added() -> None:
    tree = LabelTree(["a", "b"], [[[1], [2, 3]], [[4], [5]]])

    assert np.exp(tree.read([np.log([0.1, 0.2, 0.3, 0.15])])).tolist() == pytest.approx([0.3, 0.45])


def test_a_spelling_that_goes_on_from_another_of_the_same_label_adds_nothing() -> None:
    tree = LabelTree(["a", "b"], [[[1], [1, 3], [1, 4]], [[2]]])

    assert [question.path for question in tree.questions] == [()]


def test_a_question_with_more_answers_than_may_be_asked_for_is_several() -> None:
    names, spellings = [f"label{n}" for n in range(7)], [[[n]] for n in range(7)]
    whole, parted = LabelTree(names, spellings), LabelTree(names, spellings, most=3)
    logs = np.log(np.linspace(0.05, 0.2, 7))

    assert [(question.path, question.answers.tolist()) for question in parted.questions] == [
        ((), [0, 1, 2]),
        ((), [3, 4, 5]),
        ((), [6]),
    ]
    assert parted.read([logs[:3], logs[3:6], logs[6:]]).tolist() == whole.read([logs]).tolist()


@pytest.mark.parametrize(
    ("spellings", "reason"),
    [
        ([[[1, 2]], [[1, 2]]], "same tokens"),
        ([[[1]], [[1, 2]]], "begins"),
        ([[[1, 2]], [[1]]], "begins"),
        ([[[]], [[1]]], "no tokens"),
    ],
)
def test_labels_that_the_vocabulary_cannot_tell_apart_are_refused(
    spellings: list[list[list[int]]], reason: str
) -> None:
    with pytest.raises(UntrustedError, match=reason):
        LabelTree(["low", "low-risk"], spellings)


def test_a_logit_minus_the_total_is_its_share_of_the_full_softmax() -> None:
    logits = np.array([[1.0, 2.0, 3.0, 700.0], [0.0, 0.0, 0.0, 0.0]], np.float32)

    shares = np.exp(logits - log_totals(logits)[:, None])

    assert shares[0].tolist() == pytest.approx([0, 0, 0, 1])
    assert shares[1].tolist() == pytest.approx([0.25] * 4)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_logits_that_are_no_numbers_are_refused_and_not_passed_on(wrong: float) -> None:
    with pytest.raises(InputError, match="not numbers"):
        log_totals(np.array([[1.0, wrong]], np.float32))
