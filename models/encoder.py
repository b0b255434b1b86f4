"""`EncoderClassifier`: a BERT-family GGUF with a classification head; it reads a text whole and has no instruction.

It keeps nothing between texts, and attends to all tokens of a batch at once, so it takes a few texts of like length at
a time. What the outputs of the head stand for `models/heads.py` says: labels, none of them, and the choices of fields.
Copied fields are read off the tokens' vectors (`models/roles.py`), in a second pass over the events that have fields.
"""

import re
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
from msgspec import Struct

from models.calibration import calibrate
from models.contracts.errors import InputError, UntrustedError
from models.contracts.opinion import Opinion
from models.contracts.release import Release
from models.heads import Head
from models.llama import Encoder, Logits, Model
from models.roles import Float32s, RoleReader, Span, candidates, covered
from models.window import shares
from models.wording import Wording, words_of

_TEXTS_AT_ONCE = 8
_ROWS = 512
_BYTES_PER_TOKEN = 16


_WORDS_REMEMBERED = 16_384
_LONGEST_REMEMBERED = 64  # characters; strangers write longer ones to fill memory, and nobody writes them twice
# As BERT's tokeniser parts a text before it looks for pieces: no token reaches over such a boundary.
_APART = re.compile(r"\w+|[^\w\s]")


class _Text(Struct, frozen=True):
    tokens: list[int]
    truncated: bool


class EncoderClassifier:
    """A `Classifier` on an encoder GGUF whose labels are the task's."""

    def __init__(self, model: Model, release: Release, *, threads: int) -> None:
        """Open one context per thread, and one more for the release that reads copied fields.

        Raises:
            UntrustedError: the head's outputs are not the task's, its texts have no marks at their ends, or the layer
                for the fields does not fit the model.
        """
        if not model.vocabulary.marks_both_ends:
            raise UntrustedError(
                f"{model.path}: its vocabulary does not mark both ends of a text, as an encoder's does; refused it"
            )
        self._model, self._release = model, release
        self._head = Head(model.labels, release.task, str(model.path))
        self._positions = min(_ROWS, model.trained_context, release.prompt.max_tokens)
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="lane") if threads > 1 else None
        self._lanes = [Encoder(model, rows=_ROWS, sequences=_TEXTS_AT_ONCE) for _ in range(threads)]
        self._roles = RoleReader(release.roles, release.task) if release.roles else None
        self._vectors = Encoder(model, rows=_ROWS, sequences=1, pooled=False) if self._roles else None
        if self._roles and self._vectors and self._roles.width != self._vectors.outputs:
            raise UntrustedError(
                f"{model.path}: its layer for the fields reads vectors of {self._roles.width} numbers, the model's "
                f"have {self._vectors.outputs}; refused it"
            )
        self._tokens_of_word = lru_cache(_WORDS_REMEMBERED)(self._encode_word)

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
        logits = dict(zip(map(tuple, order), np.concatenate(answers), strict=True))
        opinions: dict[str, Opinion] = {}  # of equal texts
        for text, words in zip(texts, encoded, strict=True):
            if text not in opinions:
                opinions[text] = self._opinion(text, words, logits[tuple(words.tokens)])
        return [opinions[text] for text in texts]

    def _words(self, text: str) -> Wording:
        if self._release.prompt.wording:
            return words_of(text)
        return Wording(text, ((text, 0, len(text)),))

    def _encode(self, text: str) -> _Text:
        """Tokenise; of a text that is too long the start stays, and the mark at its end."""
        words = self._words(text)
        limit = self._positions * _BYTES_PER_TOKEN
        tokens = self._model.vocabulary.encode_whole(words.text[:limit])
        if len(tokens) <= self._positions:
            return _Text(tokens, words.end < len(text) or len(words.text) > limit)
        return _Text([*tokens[: self._positions - 1], tokens[-1]], truncated=True)

    def _opinion(self, text: str, words: _Text, logits: Logits) -> Opinion:
        if not np.isfinite(logits).all():
            raise InputError("the model's logits are not numbers; its weights are damaged, or this text breaks it")
        log_probabilities, mass = self._head.labels(logits.astype(np.float64))
        probabilities = calibrate(log_probabilities, self._release.calibration)
        task = self._release.task
        label = task.label_names[int(np.argmax(probabilities))]
        fields = self._fields(text, words, logits) if label in task.fields_for else {}
        return Opinion(probabilities=probabilities, label_mass=mass, truncated=words.truncated, fields=fields)

    def _fields(self, text: str, words: _Text, logits: Logits) -> dict[str, tuple[str, ...]]:
        found = self._head.chosen(logits.astype(np.float64))
        if self._roles is None or self._vectors is None:
            return found
        spans, ranges = self._candidates(text, words.tokens)
        if spans:
            found |= self._roles.read(text, spans, means(self._vectors.encode([words.tokens]), ranges))
        # In the task's order, as a decoder writes them.
        return {field.name: found[field.name] for field in self._release.task.fields if field.name in found}

    def _candidates(self, text: str, tokens: Sequence[int]) -> tuple[list[Span], list[Span]]:
        """Return where values may stand, and which rows of the tokens' vectors stand for each.

        A text whose words, tokenised apart, are not its tokens has no candidates: nobody knows which is which.
        """
        words = self._words(text)
        characters = words.origins()
        apart: list[int] = []
        origins: list[Span] = []
        for match in _APART.finditer(words.text):
            word = match[0]
            pieces = self._tokens_of_word(word) if len(word) <= _LONGEST_REMEMBERED else self._encode_word(word)
            begin, end = characters[match.start()][0], characters[match.end() - 1][1]
            apart += pieces
            origins += [(begin, end)] * len(pieces)
        kept = len(tokens) - 2  # between the marks
        if apart[:kept] != list(tokens[1:-1]):
            return [], []
        spans = candidates(text)
        # One further on: the first row is the mark's.
        ranges = [(begin + 1, end + 1) for begin, end in covered(spans, origins[:kept])]
        seen = [(span, rows) for span, rows in zip(spans, ranges, strict=True) if rows[0] < rows[1]]
        return [span for span, _ in seen], [rows for _, rows in seen]

    def _encode_word(self, word: str) -> tuple[int, ...]:
        return tuple(self._model.vocabulary.encode_whole(word)[1:-1])


def means(vectors: Float32s, ranges: Sequence[Span]) -> Float32s:
    """Return the mean of each range of rows."""
    sums = np.concatenate([np.zeros((1, vectors.shape[1]), np.float64), vectors.cumsum(axis=0, dtype=np.float64)])
    begins, ends = np.array([begin for begin, _ in ranges]), np.array([end for _, end in ranges])
    found: Float32s = ((sums[ends] - sums[begins]) / (ends - begins)[:, None]).astype(np.float32)
    return found


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
