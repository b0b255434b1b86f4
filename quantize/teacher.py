"""A second opinion on every template: what n-grams say of it that learnt from other products only, or a release.

A small model learns its few thousand templates by heart, and is sure of itself where it should not be. What can be
said of a template without having seen its product is what will hold of a product that nobody has seen; half of what
the model is to answer is that (cross-fitted distillation: Hinton et al., "Distilling the Knowledge in a Neural
Network", 2015, with a teacher that never saw the example).
A release as teacher has read the templates itself. It is surer of them than it should be, so what it says is what its
calibration makes of it; what it knows of words no n-gram does.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from sklearn.model_selection import GroupKFold

from models.contracts.errors import InputError
from models.contracts.release import Release
from models.contracts.task import Task
from quantize import ask
from quantize.baseline import train_baseline
from quantize.calibrate import Floats
from quantize.event_types import EventType
from quantize.expand import example_of, expand
from quantize.product_groups import product_groups

_PARTS = 5
_DRAWS = 2
_SEED = 75


def second_opinions(types: Sequence[EventType], task: Task) -> list[tuple[float, ...]]:
    """Return a probability per label for every template of `types`, in order."""
    examples = [example_of(line, task) for line in expand(types, copies=_DRAWS, seed=_SEED)]
    groups = product_groups(example.product for example in examples)
    said = np.zeros((len(examples), len(task.label_names)))
    parts = GroupKFold(_PARTS).split(examples, groups=[groups[example.product][0] for example in examples])
    for learnt, asked in parts:
        peer = train_baseline([examples[at] for at in learnt], task.label_names)
        said[asked] = peer.predict_proba([examples[at].body for at in asked])
    return _by_template(said)


def opinions_of(
    model: Path, teacher: Release, types: Sequence[EventType], task: Task, tick: Callable[[int, int], None]
) -> list[tuple[float, ...]]:
    """Return what a release says of every template of `types`, in order.

    Raises:
        InputError: it answers with other labels.
    """
    if teacher.task.label_names != task.label_names:
        raise InputError(
            f"{model}: it answers {', '.join(teacher.task.label_names)}; a teacher of task {task.name} wanted, "
            f"which has {', '.join(task.label_names)}"
        )
    bodies = [example_of(line, task).body for line in expand(types, copies=_DRAWS, seed=_SEED)]
    return _by_template(ask.ask(model, teacher, bodies, tick=tick).probabilities)


def _by_template(said: Floats) -> list[tuple[float, ...]]:
    return [tuple(mean) for mean in said.reshape(-1, _DRAWS, said.shape[1]).mean(axis=1).tolist()]
