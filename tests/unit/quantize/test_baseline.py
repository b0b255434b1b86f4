from quantize import baseline
from quantize.expand import Example

NAMES = ("benign", "suspicious")


def test_labels_count_by_how_often_they_occur_unless_all_are_to_count_alike() -> None:
    toss_up = "token used from a new address"
    rows = [(toss_up, "benign", 20), ("backup finished without errors", "benign", 40), (toss_up, "suspicious", 15)]
    examples = [Example(text, label, "product", {}) for text, label, times in rows for _ in range(times)]

    by_number, alike = (baseline.train_baseline(examples, NAMES, evenly=evenly) for evenly in (False, True))

    assert baseline.choose(by_number, [toss_up]).tolist() == [0]
    assert baseline.choose(alike, [toss_up]).tolist() == [1]
