"""A classifier whose answers, refusals and outages a test writes down."""

from collections.abc import Callable, Sequence

from models.contracts.errors import InputError, UnavailableError
from models.contracts.opinion import Opinion
from models.contracts.release import Release
from models.contracts.task import Label, Task

TASK = Task(
    name="soc-triage",
    instruction="Triage.",
    labels=(Label("benign", "usual"), Label("suspicious", "look"), Label("critical", "act")),
    default_label="suspicious",
)


def release(number: int = 1, task: Task = TASK) -> Release:
    return Release(name="scripted", number=number, task=task)


BENIGN = Opinion(probabilities=(0.9, 0.07, 0.03), label_mass=0.99)
DOUBTFUL = Opinion(probabilities=(0.4, 0.35, 0.25), label_mass=0.99)
CRITICAL = Opinion(probabilities=(0.02, 0.03, 0.95), label_mass=0.99)


def by_word(text: str) -> Opinion:
    """Critical where the text says `attack`, doubtful where it says `maybe`, benign otherwise."""
    if "attack" in text:
        return CRITICAL
    return DOUBTFUL if "maybe" in text else BENIGN


class ScriptedClassifier:
    """Refuses every batch that holds a poisoned text, and fails `outages` times before it answers."""

    def __init__(
        self,
        answer: Callable[[str], Opinion] = by_word,
        *,
        number: int = 1,
        poison: Callable[[str], bool] = lambda text: "poison" in text,
        outages: int = 0,
    ) -> None:
        self._answer = answer
        self._release = release(number)
        self._poison = poison
        self._outages = outages
        self.asked: list[list[str]] = []

    @property
    def release(self) -> Release:
        return self._release

    def classify(self, texts: Sequence[str]) -> list[Opinion]:
        self.asked.append(list(texts))
        if self._outages > 0:
            self._outages -= 1
            raise UnavailableError("scripted: away; try the same batch again")
        if any(map(self._poison, texts)):
            raise InputError("scripted: a text is poison; classified none of the batch")
        return [self._answer(text) for text in texts]

    def close(self) -> None:
        self._outages = 1 << 30
