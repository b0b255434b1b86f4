"""`DecoderClassifier`: any instruct GGUF, or one trained for its task, read at the answer position.

A batch is tokenised; texts that occur twice are read once; the rest is sorted, cut into contiguous parts that free
threads take one by one, and read with no shared beginning of a part decoded twice. Only then are fields written, for
the labels that have them.
"""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing

import numpy as np
from msgspec import Struct

from models.contracts.errors import UntrustedError
from models.contracts.opinion import Opinion
from models.contracts.release import Release
from models.decoder_task import NO_FIELDS, DecoderTask, Fields, Suffix
from models.labels import Float64s, log_totals
from models.lane import Lane, Stretch
from models.llama import Logits, Model
from models.precedents import Precedents, Values
from models.transcript import FieldProgram
from models.window import TILE_ROWS, Int32s, order_of, shares

_PART_TOKENS = 2 * TILE_ROWS  # a smaller part would decode beginnings twice that it shares with its neighbour
_PARTS_PER_LANE = 4
_FIELDS_WORK = 2 * TILE_ROWS // 3  # what writing fields takes, in tokens read


class _Asked(Struct, frozen=True):
    """A text that is to be read."""

    suffix: Suffix
    precedent: Values | None  # the fields it will likely have

    @property
    def work(self) -> int:
        """How long it takes to answer, in tokens read."""
        return len(self.suffix.tokens) + (0 if self.precedent is None else _FIELDS_WORK)


class DecoderClassifier:
    """A `Classifier` on a decoder GGUF."""

    def __init__(self, model: Model, release: Release, *, threads: int, context_tokens: int) -> None:
        """Decode the instruction once per thread and keep it.

        Raises:
            UntrustedError: the model cannot express the labels, or cannot be read this way at all.
            ConfigError: the instruction does not fit the context.
        """
        if not model.rolls_back or not model.decodes:
            raise UntrustedError(
                f"{model.path}: architecture `{model.architecture}` cannot forget an event and keep the instruction "
                "(recurrent, hybrid, or with an encoder in front); a decoder with attention is wanted"
            )
        self._model, self._release = model, release
        cells = min(context_tokens, model.trained_context)
        self._task = DecoderTask(release, model.vocabulary, model.chat_template, cells=cells, where=str(model.path))
        self._program = None
        if self._task.reads_fields:
            vocabulary = model.vocabulary
            self._program = FieldProgram(release.task, vocabulary.encode, vocabulary.token_of_piece, vocabulary.pieces)
        self._precedents = Precedents()
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="lane") if threads > 1 else None
        self._lanes = [Lane(model, self._task.before, cells) for _ in range(threads)]
        self._free = list(self._lanes)

    @property
    def release(self) -> Release:
        return self._release

    @property
    def tokens_decoded(self) -> int:
        """Counts the tokens that went through the model, for whoever measures it."""
        return sum(lane.decoded for lane in self._lanes)

    def classify(self, texts: Sequence[str]) -> list[Opinion]:
        """Return one opinion per text, in order."""
        with self._lock:  # a lane is one thread's at a time
            self._model.must_be_open()
            return self._classify(texts) if texts else []

    def close(self) -> None:
        """Give memory and threads back, after what is being classified."""
        with self._lock:
            if self._pool is not None:
                self._pool.shutdown()
            self._model.close()

    def _classify(self, texts: Sequence[str]) -> list[Opinion]:
        suffixes = {text: self._task.suffix(text) for text in dict.fromkeys(texts)}
        # Different texts may be the same once they are cut.
        distinct = list({suffix.key: self._asked(suffix) for suffix in suffixes.values()}.values())
        ordered = [distinct[i] for i in order_of([asked.suffix.tokens for asked in distinct])]
        work = [asked.work for asked in ordered]
        parts = [ordered[begin:end] for begin, end in shares(work, self._parts(sum(work)))]
        if self._pool is None or len(parts) == 1:
            answers = [self._read(self._lanes[0], part) for part in parts]
        else:
            futures = [self._pool.submit(self._read_on_a_free_lane, part) for part in parts]
            wait(futures)  # all of them: a lane that still runs is not free, whatever happened to another
            answers = [future.result() for future in futures]
        opinions = {
            asked.suffix.key: opinion
            for part, answer in zip(parts, answers, strict=True)
            for asked, opinion in zip(part, answer, strict=True)
        }
        # Texts that differ may read the same.
        grounded = {text: self._task.grounded(opinions[suffix.key], suffix, text) for text, suffix in suffixes.items()}
        return [grounded[text] for text in texts]

    def _asked(self, suffix: Suffix) -> _Asked:
        return _Asked(suffix, self._precedents.likely(suffix.body))

    def _parts(self, work: int) -> int:
        """Return into how many parts a batch is cut: several per lane where there is work for them.

        Sorting puts like events side by side, those with fields too, so that halves of a batch may differ in work by
        far; of smaller parts, whoever is done takes the next.
        """
        lanes = len(self._lanes)
        return 1 if lanes == 1 else lanes * min(max(work // (lanes * _PART_TOKENS), 1), _PARTS_PER_LANE)

    def _read_on_a_free_lane(self, part: Sequence[_Asked]) -> list[Opinion]:
        lane = self._free.pop()  # there is one: the pool has no more threads than there are lanes
        try:
            return self._read(lane, part)
        finally:
            self._free.append(lane)

    def _read(self, lane: Lane, part: Sequence[_Asked]) -> list[Opinion]:
        """Read sorted, distinct texts on one lane."""
        task, texts = self._task, [asked.suffix.tokens for asked in part]
        # A label of several questions is known only when all are answered, so fields take a second pass then.
        answers = self._all_answers(lane, texts) if len(task.labels.questions) > 1 else None
        if answers is not None and self._program is None:
            return [task.opinion(asked.suffix, logs) for asked, logs in zip(part, answers, strict=True)]
        opinions: list[Opinion] = []
        with closing(lane.read(texts)) as stretches:
            for stretch in stretches:
                end = stretch.first + len(stretch.logits)
                some = part[stretch.first : end]
                logs = self._root_answers(stretch.logits) if answers is None else answers[stretch.first : end]
                fields = self._fields(stretch, some, logs)
                opinions += [
                    task.opinion(asked.suffix, log, found) for asked, log, found in zip(some, logs, fields, strict=True)
                ]
        return opinions

    def _root_answers(self, logits: Logits) -> list[Float64s]:
        """Return the log of each label's raw probability behind each text."""
        root = self._task.labels.questions[0].answers
        return [
            self._task.labels.read([row[root] - total]) for row, total in zip(logits, log_totals(logits), strict=True)
        ]

    def _all_answers(self, lane: Lane, texts: Sequence[Int32s]) -> list[Float64s]:
        """Ask every question of the label tree behind every text; a text with a question's path is a text too."""
        questions = self._task.labels.questions
        asked = [
            (text, place, np.append(tokens, question.path).astype(np.int32))
            for text, tokens in enumerate(texts)
            for place, question in enumerate(questions)
        ]
        order = order_of([tokens for _, _, tokens in asked])
        answers: list[list[Float64s]] = [[np.empty(0)] * len(questions) for _ in texts]
        with closing(lane.read([asked[i][2] for i in order])) as stretches:
            for stretch in stretches:
                numbers = order[stretch.first : stretch.first + len(stretch.logits)]
                for row, total, i in zip(stretch.logits, log_totals(stretch.logits), numbers, strict=True):
                    text, place, _ = asked[i]
                    answers[text][place] = row[questions[place].answers] - total
        return [self._task.labels.read(answer) for answer in answers]

    def _fields(self, stretch: Stretch, part: Sequence[_Asked], logs: Sequence[Float64s]) -> list[Fields]:
        """Have fields written behind the texts of a stretch whose label wants them."""
        fields = [NO_FIELDS] * len(part)
        task, program = self._task, self._program
        if program is None:
            return fields
        labels = [task.label_of(log) for log in logs]
        places = [place for place, label in enumerate(labels) if task.has_fields(label)]
        begun = [program.begin(part[place].suffix.body, part[place].precedent) for place in places]
        written = stretch.write(places, [task.label_tokens[labels[place]] for place in places], begun)
        for place, transcript in zip(places, written, strict=True):
            fields[place] = values, _ = transcript.values()
            if values != part[place].precedent:
                self._precedents.remember(part[place].suffix.body, values)
        return fields
