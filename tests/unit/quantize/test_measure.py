import numpy as np

from quantize.measure import FieldScores, LabelScores, field_scores, label_scores, macro_f1, with_a_wrong_value


def test_scores_count_what_was_right_by_label() -> None:
    scores = label_scores(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), ("benign", "critical"))

    assert scores == {"benign": LabelScores(0.5, 1.0, 2 / 3, 1), "critical": LabelScores(1.0, 2 / 3, 0.8, 3)}
    assert macro_f1(scores) == (2 / 3 + 0.8) / 2


def test_a_field_is_right_only_where_the_whole_value_is() -> None:
    given = [{"source": ["10.0.0.1"]}, {"source": ["10.0.0"]}, {}]
    wanted = [{"source": ["10.0.0.1"]}, {"source": ["10.0.0.2"]}, {"source": ["a"]}]

    assert field_scores(given, wanted, ("source",)) == {"source": FieldScores(0.5, 1 / 3, 3)}


def test_an_event_with_an_invented_or_a_misplaced_value_counts_once_and_one_that_lacks_a_value_does_not() -> None:
    wanted = [{"source": ["a"], "target": ["b"]}] * 4 + [{}]
    given = [{"source": ["a"]}, {"source": ["b"], "target": ["a"]}, {"target": ["b", "c"]}, {}, {"source": ["a"]}]

    assert with_a_wrong_value(given, wanted) == 3 / 5
    assert with_a_wrong_value([], []) == 0.0
