"""`EncoderClassifier`: a BERT-family GGUF with a classification head; it reads a text whole and has no instruction.

It keeps nothing between texts, and attends to all tokens of a batch at once, so it takes a few texts of like length at
a time. What the outputs of the head stand for `models/heads.py` says: labels, none of them, and the choices of fields.
Copied fields are read off the tokens' vectors (`models/roles.py`), in a second pass over the events that have fields.
"""

import re
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import chain
from typing import Final, TypeVar

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from models.calibration import calibrate
from models.classifier import Classifier
from models.contracts.errors import InputError, UntrustedError
from models.contracts.opinion import Opinion
from models.contracts.release import Release
from models.heads import Head
from models.llama import Encoder, Logits, Model
from models.roles import Float32s, RoleReader, Span, candidates, covered
from models.window import shares
from models.wording import Wording, words_of

K = TypeVar("K")
T = TypeVar("T")
R = TypeVar("R")

_TEXTS_AT_ONCE = 8
_ROWS = 512
_BYTES_PER_TOKEN = 16
READINGS: Final = 4096
"""So many are remembered, in no more than `_REMEMBERED_BYTES`."""

_REMEMBERED_BYTES = 8 << 20  # of readings with their logits, and again of readings with their candidates' scores

_WORDS_REMEMBERED = 16_384
_LONGEST_REMEMBERED = 64  # characters; strangers write longer ones to fill memory, and nobody writes them twice
# As BERT's tokeniser parts a text before it looks for pieces: no token reaches over such a boundary.
_APART = re.compile(r"\w+|[^\w\s]")


class _Text(Struct, frozen=True):
    tokens: list[int]
    truncated: bool

    @property
    def reading(self) -> bytes:
        """What the model is given: two texts with one reading have one label."""
        return np.array(self.tokens, np.int32).tobytes()


class _Latest(dict[K, Float32s]):
    """What was computed last, by bytes of any kind; the oldest goes first."""

    def __init__(self, most: int, size_of: Callable[[K], int]) -> None:
        super().__init__()
        self._most = most
        self._size_of = size_of
        self._bytes = 0

    def add(self, keys: Iterable[K], computed: Iterable[Float32s]) -> None:
        """Remember what is not remembered yet."""
        for key, numbers in zip(keys, computed, strict=True):
            self[key] = numbers
            self._bytes += self._size_of(key) + numbers.nbytes

    def shorten(self) -> None:
        """Forget what is too much; not while it is being asked for."""
        while len(self) > self._most or self._bytes > _REMEMBERED_BYTES:
            key = next(iter(self))
            self._bytes -= self._size_of(key) + self.pop(key).nbytes


class _Asked(Struct, frozen=True):
    """A text whose tokens' vectors are wanted, and which rows of them stand for a candidate."""

    tokens: list[int]
    ranges: list[Span]


class EncoderClassifier:
    """A `Classifier` on an encoder GGUF whose labels are the task's."""

    def __init__(
        self,
        model: Model,
        release: Release,
        *,
        threads: int,
        remembered: int = READINGS,
        second: Classifier | None = None,
    ) -> None:
        """Open one context per thread, and as many again for a release that reads copied fields.

        What the model says is remembered for so many readings: its weights do not change, so it would say it again.
        `second` gives the second opinion, and is closed with this one.

        Raises:
            UntrustedError: the head's outputs are not the task's, its texts have no marks at their ends, or the layer
                for the fields does not fit the model.
        """
        if not model.vocabulary.marks_both_ends:
            raise UntrustedError(
                f"{model.path}: its vocabulary does not mark both ends of a text, as an encoder's does; refused it"
            )
        self._model, self._release, self._second = model, release, second
        self._head = Head(model.labels, release.task, str(model.path))
        self._positions = min(_ROWS, model.trained_context, release.prompt.max_tokens)
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="lane") if threads > 1 else None
        self._lanes = [Encoder(model, rows=_ROWS, sequences=_TEXTS_AT_ONCE) for _ in range(threads)]
        self._roles = RoleReader(release.roles, release.task) if release.roles else None
        self._readers: list[Encoder] = []
        if self._roles is not None:
            self._readers = [Encoder(model, rows=_ROWS, sequences=1, pooled=False) for _ in range(threads)]
            if self._roles.width != self._readers[0].outputs:
                raise UntrustedError(
                    f"{model.path}: its layer for the fields reads vectors of {self._roles.width} numbers, the model's "
                    f"have {self._readers[0].outputs}; refused it"
                )
        self._said: _Latest[bytes] = _Latest(remembered, len)
        self._scored: _Latest[tuple[bytes, bytes]] = _Latest(remembered, lambda key: sum(map(len, key)))
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
            if self._second is not None:
                self._second.close()
            self._model.close()

    def _classify(self, texts: Sequence[str]) -> list[Opinion]:
        read = {text: self._encode(text) for text in dict.fromkeys(texts)}
        readings = {text: words.reading for text, words in read.items()}
        new = {readings[text]: words.tokens for text, words in read.items() if readings[text] not in self._said}
        if new:
            order = sorted(new, key=lambda reading: (len(new[reading]), new[reading]))
            tokens = [new[reading] for reading in order]
            answers = self._shared(_read, self._lanes, tokens, [len(each) for each in tokens])
            self._said.add(order, np.concatenate(answers))
        second = self._second_opinions(list(read))
        opinions = {
            text: self._opinion(self._said[readings[text]], words, second.get(text)) for text, words in read.items()
        }
        opinions |= self._with_copied(opinions, read, readings)
        self._said.shorten()
        self._scored.shorten()
        return [opinions[text] for text in texts]

    def _second_opinions(self, texts: Sequence[str]) -> dict[str, Sequence[float]]:
        if self._second is None:
            return {}
        opinions = self._second.classify(texts)
        return {text: opinion.probabilities for text, opinion in zip(texts, opinions, strict=True)}

    def _shared(
        self, work: Callable[[Encoder, list[T]], R], lanes: Sequence[Encoder], items: list[T], lengths: Sequence[int]
    ) -> list[R]:
        """Do the work in as many lanes as there are, each on its share, and return what each made of it, in order."""
        parts = [items[begin:end] for begin, end in shares(lengths, len(lanes))]
        if self._pool is None or len(parts) == 1:
            return [work(lane, part) for lane, part in zip(lanes, parts, strict=False)]
        return list(self._pool.map(work, lanes, parts))  # an `Encoder` locks itself

    def _words(self, text: str) -> Wording:
        return words_of(text, self._release.prompt.wording)

    def _encode(self, text: str) -> _Text:
        """Tokenise; of a text that is too long the start stays, and the mark at its end."""
        words = self._words(text)
        limit = self._positions * _BYTES_PER_TOKEN
        tokens = self._model.vocabulary.encode_whole(words.text[:limit])
        if len(tokens) <= self._positions:
            return _Text(tokens, words.end < len(text) or len(words.text) > limit)
        return _Text([*tokens[: self._positions - 1], tokens[-1]], truncated=True)

    def _opinion(self, logits: Logits, words: _Text, second: Sequence[float] | None) -> Opinion:
        """Return label and choices, which one pass tells."""
        if not np.isfinite(logits).all():
            raise InputError("the model's logits are not numbers; its weights are damaged, or this text breaks it")
        log_probabilities, mass = self._head.labels(logits.astype(np.float64))
        probabilities = calibrate(log_probabilities, self._release.calibration, second)
        fields = self._head.chosen(logits.astype(np.float64)) if self._has_fields(probabilities) else {}
        return Opinion(probabilities=probabilities, label_mass=mass, truncated=words.truncated, fields=fields)

    def _has_fields(self, probabilities: Sequence[float]) -> bool:
        task = self._release.task
        return task.label_names[int(np.argmax(probabilities))] in task.fields_for

    def _with_copied(
        self, opinions: dict[str, Opinion], read: dict[str, _Text], readings: dict[str, bytes]
    ) -> dict[str, Opinion]:
        """Add what is copied from the texts, in a second pass: the first told nothing of single tokens."""
        roles = self._roles
        asked = [text for text, opinion in opinions.items() if self._has_fields(opinion.probabilities)]
        if roles is None or not asked:
            return {}

        def scored(lane: Encoder, some: list[_Asked]) -> list[Float32s]:
            return [roles.scores(means(lane.encode([each.tokens]), each.ranges)) for each in some]

        spans: dict[str, list[Span]] = {}
        keys: dict[str, tuple[bytes, bytes]] = {}
        new: dict[tuple[bytes, bytes], _Asked] = {}
        for text in asked:
            tokens = read[text].tokens
            spans[text], ranges = self._candidates(text, tokens)
            keys[text] = key = readings[text], np.array(ranges, np.int32).tobytes()
            if ranges and key not in self._scored:
                new[key] = _Asked(tokens, ranges)
        if new:
            found = self._shared(scored, self._readers, list(new.values()), [len(each.tokens) for each in new.values()])
            self._scored.add(new, chain.from_iterable(found))
        names = [field.name for field in self._release.task.fields]  # in the task's order, as a decoder writes them
        merged = {
            text: opinions[text].fields
            | (roles.choose(text, spans[text], self._scored[keys[text]]) if spans[text] else {})
            for text in asked
        }
        return {
            text: replace(opinions[text], fields={name: fields[name] for name in names if name in fields})
            for text, fields in merged.items()
        }

    def _candidates(self, text: str, tokens: Sequence[int]) -> tuple[list[Span], list[Span]]:
        """Return where values may stand, and which rows of the tokens' vectors stand for each.

        A text whose words, tokenised apart, are not its tokens has no candidates: nobody knows which is which.
        """
        words = self._words(text)
        characters = words.origins()
        apart: list[int] = []
        origins: list[Span] = []
        kept = len(tokens) - 2  # between the marks
        for match in _APART.finditer(words.text):
            if len(apart) >= kept:
                break
            word = match[0]
            pieces = self._tokens_of_word(word) if len(word) <= _LONGEST_REMEMBERED else self._encode_word(word)
            begin, end = characters[match.start()][0], characters[match.end() - 1][1]
            apart += pieces
            origins += [(begin, end)] * len(pieces)
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
