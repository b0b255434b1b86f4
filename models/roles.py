"""Which stretches of an event may be values, and which of them a trained encoder says is whose. Pure.

Candidates come from what every log has in common: words, quoted strings, what stands behind a `=`. An encoder has a
vector for every token of the event, a candidate the mean of its tokens' vectors, and one linear layer says which field
it belongs to, if any. A value is cut from the event, so it cannot be invented.
"""

import re
from collections.abc import Sequence
from itertools import islice

import numpy as np
import numpy.typing as npt

from models.contracts.release import Roles
from models.contracts.task import Field, Task
from models.fields import ABSENT, VALUE_MAX_BYTES, inside_words

Float32s = npt.NDArray[np.float32]
Span = tuple[int, int]

_MOST_CANDIDATES = 512
# What an analyst would take for one word: an address, a path, a name with its domain.
_WORDS = re.compile(r"[^\s\"'<>(){}\[\],;|=]+")
_QUOTED = re.compile(r"\"((?:[^\"\\]|\\.){1,256})\"|'([^']{1,256})'")
_BEHIND_EQUALS = re.compile(r"=([^\s\"',;&|\])}]{1,256})")
# A name before an `@` is looked for from its first letter alone: from each it would take its length squared.
_ADDRESS = re.compile(r"\b\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}\b|(?<![\w.+-])[\w.+-]++@[\w-]+\.[\w.-]+\w")
_OF_MORE_BYTES = re.compile(r"[\x80-\ud7ff\ue000-\U0010ffff]")
_EDGES = ".:!?*`"


def candidates(event: str) -> list[Span]:
    """Return where in `event` a value may stand, in order, each once; a candidate never cuts a word."""
    spans: dict[Span, None] = {}
    for pattern in (_ADDRESS, _QUOTED, _BEHIND_EQUALS, _WORDS):
        for match in pattern.finditer(event):
            begin, end = match.span(match.lastindex or 0)
            while begin < end and event[begin] in _EDGES:
                begin += 1
            while begin < end and event[end - 1] in _EDGES:
                end -= 1
            spans[begin, end] = None
    inside = _inside_words(event)
    kept = (span for span in sorted(spans) if _may_be_a_value(event, span, inside))
    return list(islice(kept, _MOST_CANDIDATES))


def covered(spans: Sequence[Span], origins: Sequence[Span]) -> list[Span]:
    """Return, for every span of the event, which tokens stand for it: a range, empty where none does.

    `origins` says of every token which stretch of the event it stands for; its begins never fall.
    """
    begins = np.array([begin for begin, _ in origins], np.int64)
    ends = np.maximum.accumulate(np.array([end for _, end in origins], np.int64)) if origins else begins
    return [
        (int(np.searchsorted(ends, begin, "right")), int(np.searchsorted(begins, end, "left"))) for begin, end in spans
    ]


class RoleReader:
    """Reads the copied fields of a task off an event's token vectors."""

    def __init__(self, roles: Roles, task: Task) -> None:
        self._fields = {field.name: field for field in task.fields if field.kind == "copied"}
        self._names = roles.names
        numbers = np.frombuffer(roles.weights, "<f4").reshape(len(roles.names), -1)
        self._weights, self._bias = numbers[:, :-1], numbers[:, -1]
        self.width = self._weights.shape[1]  # of a vector

    def read(self, event: str, spans: Sequence[Span], vectors: Float32s) -> dict[str, tuple[str, ...]]:
        """Return what `scores` and `choose` make of an event; `vectors` has a row per span."""
        return self.choose(event, spans, self.scores(vectors))

    def scores(self, vectors: Float32s) -> Float32s:
        """Return, for each span, the log-probability of each role; a row is the mean of a span's token vectors."""
        logits: Float32s = vectors @ self._weights.T + self._bias
        logits -= np.logaddexp.reduce(logits, axis=1, keepdims=True)
        return logits

    def choose(self, event: str, spans: Sequence[Span], logits: Float32s) -> dict[str, tuple[str, ...]]:
        """Return the values of every field that has any, the likeliest first."""
        if not spans:
            return {}
        best = logits.argmax(axis=1)
        taken: list[Span] = []
        found: dict[str, list[str]] = {}
        for at in np.argsort(-logits.max(axis=1), kind="stable"):
            name = self._names[best[at]]
            if name == ABSENT:
                continue
            (begin, end), field, values = spans[at], self._fields[name], found.setdefault(name, [])
            value = event[begin:end]
            if len(values) < field.max_values and value not in values and not _overlaps((begin, end), taken):
                values.append(value)
                taken.append((begin, end))
        return {name: tuple(values) for name, values in found.items() if values}


def role_names(fields: Sequence[Field]) -> tuple[str, ...]:
    """Return the outputs of the layer, in order: none, then the copied fields."""
    return (ABSENT, *(field.name for field in fields if field.kind == "copied"))


def _overlaps(span: Span, taken: Sequence[Span]) -> bool:
    return any(span[0] < end and begin < span[1] for begin, end in taken)


def _inside_words(event: str) -> bytearray:
    """Return, for every position between two characters, whether a value would cut a word there."""
    # Letters of more than one byte are letters of one here, so that positions are those of characters.
    return inside_words(_OF_MORE_BYTES.sub("\x80", event).encode("latin-1", "replace"))


def _may_be_a_value(event: str, span: Span, inside: bytearray) -> bool:
    """Tell whether the contract of fields allows it: whole words, nothing that parts values, not too long."""
    begin, end = span
    value = event[begin:end]
    if inside[begin] or inside[end] or value != value.strip() or any(mark in value for mark in ";\r\n"):
        return False
    return len(value.encode("utf-8", "replace")) <= VALUE_MAX_BYTES and any(map(str.isalnum, value))
