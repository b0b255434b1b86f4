"""What the outputs of an encoder's classification head stand for, and how they are read. Pure.

An output is called after a label; or `-`, which stands for none of them and is what a text is that the task is not
about; or `field=choice`, one for each choice of a field and `field=-` for none. A head of labels alone is as good: its
label mass is 1, for its softmax has nothing else to give weight to.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from models.contracts.errors import UntrustedError
from models.contracts.task import Task
from models.fields import ABSENT

Float64s = npt.NDArray[np.float64]


def outputs_of(task: Task) -> tuple[str, ...]:
    """Return the outputs of a head that is trained for `task`, in order."""
    fields = [field for field in task.fields if field.kind == "choice"]
    choices = [f"{field.name}={choice}" for field in fields for choice in (ABSENT, *field.choices)]
    return (*task.label_names, ABSENT, *choices)


class Choices(Struct, frozen=True):
    """The outputs of one field: its choices, none first."""

    field: str
    names: tuple[str, ...]
    columns: tuple[int, ...]


class Head:
    """Reads the logits of one text."""

    def __init__(self, outputs: Sequence[str], task: Task, where: str) -> None:
        """Find the task's labels and choices among the outputs.

        Raises:
            UntrustedError: the outputs are not those of this task.
        """
        names = task.label_names
        known = outputs_of(task)
        if len(set(outputs)) != len(outputs) or not set(names) <= set(outputs) <= set(known):
            raise UntrustedError(
                f"{where}: its classification head answers {_some(outputs)}, task {task.name} wants {_some(names)}; "
                "refused it"
            )
        self._labels = [outputs.index(name) for name in names]
        self._none = [outputs.index(ABSENT)] if ABSENT in outputs else []
        fields = [field for field in task.fields if field.kind == "choice"]
        found = [[(choice, f"{field.name}={choice}") for choice in (ABSENT, *field.choices)] for field in fields]
        self.choices = tuple(
            Choices(
                field.name,
                tuple(choice for choice, output in pairs if output in outputs),
                tuple(outputs.index(output) for _, output in pairs if output in outputs),
            )
            for field, pairs in zip(fields, found, strict=True)
            if any(output in outputs for _, output in pairs)
        )

    def labels(self, logits: Float64s) -> tuple[Float64s, float]:
        """Return the log-probabilities of the labels among themselves, and their mass."""
        mine = logits[self._labels]
        within = np.logaddexp.reduce(mine)
        everything = np.logaddexp.reduce(logits[self._labels + self._none])
        return mine - within, float(np.exp(within - everything))

    def chosen(self, logits: Float64s) -> dict[str, tuple[str, ...]]:
        """Return the likeliest choice of every field; one for which none is likeliest is absent."""
        best = {one.field: one.names[int(np.argmax(logits[list(one.columns)]))] for one in self.choices}
        return {field: (choice,) for field, choice in best.items() if choice != ABSENT}


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:8])
    return f"{shown} and {len(names) - 8} more" if len(names) > 8 else shown
