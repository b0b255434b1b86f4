"""The one verb every runtime implements, and the reference through which a running one is replaced."""

from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from models.contracts.opinion import Opinion
from models.contracts.release import Release

T = TypeVar("T")


class Classifier(Protocol):
    """Labels texts. Deterministic for one batch, and does no network I/O once built, but for a server's (`engines`)."""

    @property
    def release(self) -> Release:
        """What is running: task, number, calibration."""

    def classify(self, texts: Sequence[str]) -> list[Opinion]:
        """Return one opinion per text, in order; an empty batch is an empty list.

        A text is data: nothing in it is read as a control token. One that is too long is cut and marked. An engine that
        may be slow or dead gives an opinion that says so (`unanswered`) on what it has not answered in its time.

        Raises:
            InputError: a text of this batch cannot be classified at all; the others can.
            UnavailableError: the runtime cannot take the batch now; send the same batch later. Or it is closed.
        """

    def close(self) -> None:
        """Give memory and threads back; the classifier is not used again."""


class Current(Generic[T]):
    """One immutable thing in force, read once per batch and replaced between batches.

    An assignment is atomic in CPython, so readers need no lock.
    """

    def __init__(self, value: T) -> None:
        self._value = value

    def get(self) -> T:
        return self._value

    def replace(self, value: T) -> T:
        """Put `value` in force and return what was."""
        before, self._value = self._value, value
        return before
