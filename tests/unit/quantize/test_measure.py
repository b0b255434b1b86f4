import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantize.measure import (
    Bin,
    FieldScores,
    LabelScores,
    SourceScores,
    accuracy,
    auroc,
    by_source,
    confusion,
    estimate,
    estimate_of_error,
    estimate_of_macro_f1,
    estimate_of_share,
    field_scores,
    label_scores,
    macro_f1_of,
    reliability,
    with_a_wrong_value,
)


def test_scores_count_what_was_right_by_label() -> None:
    scores = label_scores(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), ("benign", "critical"))

    assert scores == {"benign": LabelScores(0.5, 1.0, 2 / 3, 1), "critical": LabelScores(1.0, 2 / 3, 0.8, 3)}


def test_a_field_is_right_only_where_the_whole_value_is() -> None:
    given = [{"source": ["10.0.0.1"]}, {"source": ["10.0.0"]}, {}]
    wanted = [{"source": ["10.0.0.1"]}, {"source": ["10.0.0.2"]}, {"source": ["a"]}]

    assert field_scores(given, wanted, ("source",)) == {"source": FieldScores(0.5, 1 / 3, 3)}


def test_an_event_with_an_invented_or_a_misplaced_value_counts_once_and_one_that_lacks_a_value_does_not() -> None:
    wanted = [{"source": ["a"], "target": ["b"]}] * 4 + [{}]
    given = [{"source": ["a"]}, {"source": ["b"], "target": ["a"]}, {"target": ["b", "c"]}, {}, {"source": ["a"]}]

    assert with_a_wrong_value(given, wanted) == 3 / 5
    assert with_a_wrong_value([], []) == 0.0


def mean_of(values: np.ndarray, witnesses: np.ndarray) -> tuple[float, float, float]:
    found = estimate(lambda at: float(values[at].mean()), witnesses)
    return found.low, found.value, found.high


def test_an_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    chance = np.random.default_rng(1)
    held, widths = 0, []
    for _ in range(100):
        low, _, high = mean_of((chance.random(200) < 0.8).astype(float), np.arange(200))
        held += low <= 0.8 <= high
        widths.append(high - low)

    assert 88 <= held <= 99
    assert np.mean(widths) == pytest.approx(2 * 1.96 * (0.8 * 0.2 / 200) ** 0.5, rel=0.1)


def test_copies_of_an_event_make_nothing_surer_and_neighbours_in_the_list_are_no_copies() -> None:
    chance = np.random.default_rng(2)
    once, order = (chance.random(300) < 0.7).astype(float), chance.permutation(1_500)
    copies, witnesses = np.repeat(once, 5)[order], np.repeat(np.arange(300), 5)[order]

    alone, together, apart = (
        mean_of(once, np.arange(300)),
        mean_of(copies, witnesses),
        mean_of(copies, np.arange(1_500)),
    )

    assert together == pytest.approx(alone)
    assert apart[2] - apart[0] < 0.6 * (together[2] - together[0])


def test_a_witness_with_many_events_is_drawn_with_all_of_them() -> None:
    values, witnesses = np.array([1.0] * 90 + [0.0] * 10), np.array([5] * 90 + list(range(10, 20)))
    found = estimate(lambda at: float(values[at].sum()), witnesses)

    assert found.value == 90.0
    assert found.high % 90 == 0
    assert found.low == 0.0


def test_an_estimate_is_the_same_every_time_and_reads_as_figure_and_interval() -> None:
    values = np.arange(40.0)
    found = estimate(lambda at: float(values[at].mean()), np.arange(40))

    assert found == estimate(lambda at: float(values[at].mean()), np.arange(40))
    assert str(found) == f"19.500 ({found.low:.3f} to {found.high:.3f})"


@pytest.mark.parametrize(("witnesses", "copies"), [(12, 1), (12, 5), (1, 3), (400, 2)])
def test_what_never_happened_may_yet_happen_and_the_fewer_witnesses_the_more_often(witnesses: int, copies: int) -> None:
    who = np.repeat(np.arange(witnesses), copies)
    none, whole = (estimate_of_share(np.full(len(who), so), who) for so in (False, True))

    assert (none.value, none.low, whole.value, whole.high) == (0.0, 0.0, 1.0, 1.0)
    assert (1 - none.high) ** witnesses == pytest.approx(0.025)  # so rare is a sample without any
    assert whole.low == pytest.approx(1 - none.high)


def test_a_share_that_varies_has_the_interval_of_its_resamples() -> None:
    flags, who = np.arange(60) % 4 == 0, np.arange(60) // 2

    assert estimate_of_share(flags, who) == estimate(lambda at: float(flags[at].mean()), who)


def test_a_rare_label_that_is_not_drawn_lowers_no_macro_f1() -> None:
    # Twenty labels of one event each, all of them right, and twenty with many.
    labels = np.concatenate([np.arange(20), np.repeat(np.arange(20, 40), 20)])
    chosen = np.concatenate([labels[:-1], [20]])

    assert estimate_of_macro_f1(chosen, labels, np.arange(len(labels)), 40).low > 0.98


@pytest.mark.parametrize("witnesses", [3, 12, 400])
def test_what_was_never_wrong_has_an_interval_in_macro_f1_and_in_its_error_too(witnesses: int) -> None:
    who, labels, every = np.arange(witnesses), np.arange(witnesses) % 3, np.ones(witnesses, np.bool_)
    share = estimate_of_share(every, who)
    right, wrong = (estimate_of_macro_f1(chosen, labels, who, 3) for chosen in (labels, (labels + 1) % 3))
    half = estimate_of_macro_f1(labels, labels, who, 6)

    assert right == share
    assert (half.low, half.value, half.high) == pytest.approx((share.low / 2, 0.5, 0.5))
    assert (wrong.low, wrong.value, wrong.high) == (0.0, 0.0, pytest.approx(1 - share.low))
    # A confidence of 1 is too high by as much as may be wrong; one of 0.9 may be that of the truth.
    sure, less = (estimate_of_error(lambda _, gap=gap: gap, who, every) for gap in (0.0, 0.1))
    assert (sure.low, sure.value, sure.high) == (0.0, 0.0, pytest.approx(1 - share.low))
    assert less.low == pytest.approx(max(0.0, 0.1 - (1 - share.low)))
    assert less.high == pytest.approx(max(0.1, 1 - share.low - 0.1))


def test_labels_that_never_occur_lower_the_macro_f1_and_its_interval_alike() -> None:
    chance = np.random.default_rng(4)
    labels = chance.integers(0, 4, 300)
    chosen = np.where(chance.random(300) < 0.8, labels, 0)

    whole, half = (estimate_of_macro_f1(chosen, labels, np.arange(300), kinds) for kinds in (4, 8))

    assert whole.value == pytest.approx(macro_f1_of(chosen, labels, 4))
    assert half.value == pytest.approx(macro_f1_of(chosen, labels, 8))
    assert (half.low, half.value, half.high) == pytest.approx((whole.low / 2, whole.value / 2, whole.high / 2))


def test_a_gap_that_chance_only_widens_is_reflected_at_its_value_and_at_least_nought() -> None:
    chance = np.random.default_rng(6)
    values = chance.normal(size=60)
    by_chance, true = (
        estimate_of_error(lambda at, far=far: abs(float(values[at].mean()) + far), np.arange(60)) for far in (0.0, 3.0)
    )
    plain = estimate(lambda at: abs(float(values[at].mean())), np.arange(60))

    assert by_chance.low == 0.0
    assert by_chance.high < plain.high
    assert true.low < 3.0 + values.mean() < true.high


@given(st.lists(st.integers(0, 6), min_size=1, max_size=12), st.data())
@settings(max_examples=8, deadline=None)
def test_a_value_lies_in_its_interval(labels: list[int], data: st.DataObject) -> None:
    true = np.array(labels)
    chosen = np.array(data.draw(st.lists(st.integers(0, 6), min_size=len(labels), max_size=len(labels))))
    each = np.arange(len(labels))

    for found in (
        estimate_of_macro_f1(chosen, true, each, 7),
        estimate(lambda at: macro_f1_of(chosen[at], true[at], 7), each),
        estimate_of_error(lambda at: float((chosen[at] != true[at]).mean()) ** 2, each),
    ):
        assert 0 <= found.low <= found.value <= found.high


LABELS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40)


@given(LABELS)
def test_the_confusion_the_scores_and_the_accuracy_count_the_same_events(pairs: list[tuple[int, int]]) -> None:
    chosen, labels = (np.array(side) for side in zip(*pairs, strict=True))
    table = confusion(chosen, labels, 4)
    scores = label_scores(chosen, labels, "abcd")

    assert sum(map(sum, table)) == len(pairs)
    assert [sum(row) for row in table] == [score.events for score in scores.values()]
    assert sum(table[at][at] for at in range(4)) == pytest.approx(accuracy(chosen, labels) * len(pairs))
    assert macro_f1_of(chosen, labels, 4) == pytest.approx(np.mean([score.f1 for score in scores.values()]))


def test_a_row_of_the_confusion_is_what_became_of_a_label() -> None:
    assert confusion(np.array([1, 1, 0]), np.array([0, 0, 2]), 3) == [[0, 2, 0], [0, 0, 0], [1, 0, 0]]


def test_a_reliability_bin_holds_equally_many_events_of_rising_confidence() -> None:
    confidence = np.array([0.9, 0.5, 0.7, 0.6, 0.8, 0.95])
    said = np.stack([confidence, 1 - confidence], axis=1)

    assert reliability(said, np.array([0, 1, 0, 0, 1, 0]), bins=3) == [
        Bin(pytest.approx(0.55), 0.5, 2),
        Bin(pytest.approx(0.75), 0.5, 2),
        Bin(pytest.approx(0.925), 1.0, 2),
    ]


def test_fewer_events_than_bins_have_a_bin_each() -> None:
    said = np.array([[0.9, 0.1], [0.2, 0.8]])

    assert reliability(said, np.array([0, 0])) == [Bin(0.8, 0.0, 1), Bin(0.9, 1.0, 1)]


def test_every_source_has_a_row_the_largest_first_over_the_labels_that_occur_there() -> None:
    chosen, labels = np.array([0, 1, 0, 2, 2]), np.array([0, 1, 1, 2, 2])

    assert by_source(chosen, labels, ["web", "web", "web", "ssh", "dns"], 5) == [
        SourceScores("web", 3, 2 / 3, pytest.approx((2 / 3 + 2 / 3) / 2)),
        SourceScores("dns", 1, 1.0, pytest.approx(1.0)),
        SourceScores("ssh", 1, 1.0, pytest.approx(1.0)),
    ]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=20), st.lists(st.integers(0, 5), min_size=1, max_size=20))
def test_auroc_is_how_often_an_event_of_the_task_has_the_higher_value(mine: list[int], foreign: list[int]) -> None:
    pairs = [1.0 if own > other else 0.5 if own == other else 0.0 for own in mine for other in foreign]

    assert auroc(np.array(mine, float), np.array(foreign, float)) == pytest.approx(np.mean(pairs))
