import numpy as np
import pytest
from msgspec.structs import replace

from models.contracts.errors import InputError
from quantize.event_types import read_event_types
from quantize.named_release import named_release
from quantize.recipe import read_task
from quantize.teacher import opinions_of, second_opinions
from tests.unit.quantize.test_event_types import ROOT

TASK = read_task(ROOT / "models" / "tasks" / "soc-triage.toml")
TYPES = read_event_types()[::400]
TEMPLATES = sum(len(kind.templates) for kind in TYPES)


def test_a_release_says_something_of_every_template() -> None:
    told: list[tuple[int, int]] = []
    said = np.array(opinions_of(*named_release("soc-triage"), TYPES, TASK, lambda *done: told.append(done)))

    assert said.shape == (TEMPLATES, len(TASK.label_names))
    assert np.allclose(said.sum(axis=1), 1)
    assert told[-1][0] == told[-1][1]


def test_so_do_n_grams() -> None:
    said = np.array(second_opinions(TYPES, TASK))

    assert said.shape == (TEMPLATES, len(TASK.label_names))
    assert np.allclose(said.sum(axis=1), 1)


def test_a_teacher_of_other_labels_is_refused() -> None:
    path, release = named_release("soc-triage")
    other = replace(release, task=replace(release.task, labels=release.task.labels[::-1]))

    with pytest.raises(InputError, match="a teacher of task soc-triage wanted, which has benign"):
        opinions_of(path, other, TYPES, TASK, lambda _done, _all: None)
