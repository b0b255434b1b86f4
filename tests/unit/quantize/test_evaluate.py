import numpy as np
import pytest

from quantize.ask import Answers
from quantize.evaluate import _golden
from quantize.expand import Example


@pytest.mark.parametrize(("kinds", "expected"), [(3, 9), (30, 60), (60, 60), (77, 60), (150, 60)])
def test_there_are_at_most_sixty_golden_events_of_labels_from_all_over_the_task(kinds: int, expected: int) -> None:
    labels = np.repeat(np.arange(kinds), 4)
    names = [f"label {at}" for at in range(kinds)]
    said = np.full((len(labels), kinds), 0.1 / kinds)
    said[np.arange(len(labels)), labels] = 0.9
    found = [Example(f"event {at}", names[label], f"product {at}", {}) for at, label in enumerate(labels)]

    golden = _golden(found, Answers(said, np.ones(len(labels)), [{}] * len(labels)), labels, names)

    assert len(golden) == expected
    assert len({one.text for one in golden}) == expected
    of = sorted({names.index(one.label) for one in golden})
    assert of[0] == 0
    assert of[-1] >= kinds - 3
    assert max(np.diff(of)) <= -(-kinds // 60)
