import numpy as np

from quantize.measure import FieldScores, LabelScores, field_scores, label_scores, macro_f1


def test_scores_count_what_was_right_by_label() -> None:
    scores = label_scores(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), ("benign", "critical"))

    assert scores == {"benign": LabelScores(0.5, 1.0, 2 / 3, 1), "critical": LabelScores(1.0, 2 / 3, 0.8, 3)}
    assert macro_f1(scores) == (2 / 3 + 0.8) / 2


def test_a_field_is_right_only_where_the_whole_value_is() -> None:
    given = [{"source": ["10.0.0.1"]}, {"source": ["10.0.0"]}, {}]
    wanted = [{"source": ["10.0.0.1"]}, {"source": ["10.0.0.2"]}, {"source": ["a"]}]

    assert field_scores(given, wanted, ("source",)) == {"source": FieldScores(0.5, 1 / 3, 3)}
