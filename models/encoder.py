"""`EncoderClassifier`: a BERT-family GGUF with a classification head; it reads a text whole and has no instruction.

It keeps nothing between texts, and attends to all tokens of a batch at once, so it takes a few texts of like length at
a time. The label mass is 1: the head's softmax runs over the labels alone and has nothing else to give weight to. What
it does not know shows as a low confidence, so a `mass_floor` in the policy does nothing here. Fields stay empty.
"""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from msgspec import Struct

from models.calibration import calibrate
from models.contracts.errors import InputError, UntrustedError
from models.contracts.opinion import Opinion
from models.contracts.release import Release
from models.llama import Encoder, Logits, Model
from models.window import shares

_TEXTS_AT_ONCE = 8
_ROWS = 512
_BYTES_PER_TOKEN = 16


class _Text(Struct, frozen=True):
    tokens: list[int]
    truncated: bool


class EncoderClassifier:
    """A `Classifier` on an encoder GGUF whose labels are the task's."""

    def __init__(self, model: Model, release: Release, *, threads: int) -> None:
        """Open one context per thread.

        Raises:
            UntrustedError: the head's labels are not the task's, or its texts have no marks at their ends.
        """
        if not model.vocabulary.marks_both_ends:
            raise UntrustedError(
                f"{model.path}: its vocabulary does not mark both ends of a text, as an encoder's does; refused it"
            )
        self._model, self._release = model, release
        names = release.task.label_names
        if sorted(model.labels) != sorted(names):
            raise UntrustedError(
                f"{model.path}: its classification head answers {list(model.labels)}, "
                f"task {release.task.name} wants {list(names)}; refused it"
            )
        self._columns = np.array([model.labels.index(name) for name in names])
        self._positions = min(_ROWS, model.trained_context)
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="lane") if threads > 1 else None
        self._lanes = [Encoder(model, rows=_ROWS, sequences=_TEXTS_AT_ONCE) for _ in range(threads)]

    @property
    def release(self) -> Release:
        return self._release

    def classify(self, texts: Sequence[str]) -> list[Opinion]:
        """Return one opinion per text, in order."""
        with self._lock:  # nothing is closed under it
            self._model.must_be_open()
            return self._classify(texts) if texts else []

    def close(self) -> None:
        """Give memory and threads back, after what is being classified."""
        with self._lock:
            if self._pool is not None:
                self._pool.shutdown()
            self._model.close()

    def _classify(self, texts: Sequence[str]) -> list[Opinion]:
        encoded = [self._encode(text) for text in texts]
        distinct = {tuple(text.tokens): text.tokens for text in encoded}
        order = sorted(distinct.values(), key=lambda tokens: (len(tokens), tokens))
        parts = [order[begin:end] for begin, end in shares([len(tokens) for tokens in order], len(self._lanes))]
        if self._pool is None or len(parts) == 1:
            answers = [_read(lane, part) for lane, part in zip(self._lanes, parts, strict=False)]
        else:
            answers = list(self._pool.map(_read, self._lanes, parts))  # an `Encoder` locks itself
        logits = dict(zip(map(tuple, order), np.concatenate(answers)[:, self._columns], strict=True))
        return [self._opinion(logits[tuple(text.tokens)], truncated=text.truncated) for text in encoded]

    def _encode(self, text: str) -> _Text:
        """Tokenise; of a text that is too long the start stays, and the mark at its end."""
        limit = self._positions * _BYTES_PER_TOKEN
        tokens = self._model.vocabulary.encode_whole(text[:limit])
        if len(tokens) <= self._positions:
            return _Text(tokens, len(text) > limit)
        return _Text([*tokens[: self._positions - 1], tokens[-1]], truncated=True)

    def _opinion(self, logits: Logits, *, truncated: bool) -> Opinion:
        log_probabilities = logits.astype(np.float64)
        log_probabilities -= np.logaddexp.reduce(log_probabilities)
        if not np.isfinite(log_probabilities).all():
            raise InputError("the model's logits are not numbers; its weights are damaged, or this text breaks it")
        probabilities = calibrate(log_probabilities, self._release.calibration)
        return Opinion(probabilities=probabilities, label_mass=1.0, truncated=truncated)


def _read(lane: Encoder, texts: Sequence[Sequence[int]]) -> Logits:
    """Encode texts that are sorted by length, as many at once as fit."""
    answers, batch, rows = [], list[Sequence[int]](), 0
    for tokens in texts:
        if batch and (len(batch) == lane.sequences or rows + len(tokens) > lane.rows):
            answers.append(lane.encode(batch))
            batch, rows = [], 0
        batch.append(tokens)
        rows += len(tokens)
    answers.append(lane.encode(batch))
    return np.concatenate(answers)
