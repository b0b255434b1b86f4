"""`TableClassifier`: answers from a table, and from a hash of the text where the table has none. Benches and tests."""

import hashlib
from collections.abc import Mapping, Sequence

from models.contracts.errors import UnavailableError
from models.contracts.opinion import Opinion
from models.contracts.release import Release
from models.fields import ABSENT, occurs

TEXT_MAX_CHARACTERS = 8192


class TableClassifier:
    """A `Classifier` without a model: the same text has the same opinion on every machine."""

    def __init__(self, release: Release, table: Mapping[str, Opinion] | None = None) -> None:
        self._release = release
        self._table = dict(table or {})
        self._closed = False

    @property
    def release(self) -> Release:
        return self._release

    def classify(self, texts: Sequence[str]) -> list[Opinion]:
        """Return one opinion per text, in order."""
        if self._closed:
            raise UnavailableError(f"table of {self._release.title}: it is closed")
        return [self._table.get(text) or self._opinion(text) for text in texts]

    def close(self) -> None:
        """Nothing is held, but it is not used again."""
        self._closed = True

    def _opinion(self, text: str) -> Opinion:
        digest = hashlib.sha256(text.encode("utf-8", "replace")).digest()
        task = self._release.task
        weights = [1 + digest[i % len(digest)] ** 2 for i in range(len(task.labels))]
        label = task.label_names[weights.index(max(weights))]
        return Opinion(
            probabilities=tuple(weight / sum(weights) for weight in weights),
            label_mass=1 - digest[-1] / 512,
            fields=self._fields(text) if label in task.fields_for else {},
            truncated=len(text) > TEXT_MAX_CHARACTERS,
        )

    def _fields(self, text: str) -> dict[str, tuple[str, ...]]:
        """Return the first word of the text that is a value, in every field that is copied."""
        words = text[:TEXT_MAX_CHARACTERS].split()
        word = next((word for word in words if word != ABSENT and occurs(word, text)), None)
        return {field.name: (word,) for field in self._release.task.fields if field.kind == "copied" and word}
