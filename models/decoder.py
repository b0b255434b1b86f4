"""`DecoderClassifier`: any instruct GGUF, or one trained for its task, read at the answer position.

A batch is tokenised; texts that occur twice are read once; the rest is sorted, cut into contiguous parts that free
threads take one by one, and read with no shared beginning of a part decoded twice. Only then are fields written, for
the labels that have them.
"""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing

import msgspec
import numpy as np
from msgspec import Struct

from models.calibration import calibrate
from models.contracts.errors import ConfigError, UntrustedError
from models.contracts.opinion import Opinion
from models.contracts.release import Release
from models.contracts.task import Task
from models.ends import ends_of_text, ends_of_tokens
from models.fields import occurs
from models.labels import Float64s, LabelTree, log_totals
from models.lane import Lane, Stretch
from models.llama import Logits, Model
from models.precedents import Precedents, Values
from models.prompt import frame
from models.transcript import FieldProgram
from models.window import TILE_ROWS, Int32s, order_of, shares

_ANSWER_TOKENS = 192  # room behind an event for fields, or for a stretch of its neighbours
_EVENT_TOKENS = 64  # an instruction that leaves an event less is refused
_BYTES_PER_TOKEN = 16  # a text of more bytes than this for each token it may have is cut before it is tokenised
_JOINT = " "  # between the ends of a text that was cut
_PART_TOKENS = 2 * TILE_ROWS  # a smaller part would decode beginnings twice that it shares with its neighbour
_PARTS_PER_LANE = 4
_FIELDS_WORK = 2 * TILE_ROWS // 3  # what writing fields takes, in tokens read
_FOLDED = str.maketrans("\r\n", "  ")

_Fields = tuple[dict[str, tuple[str, ...]], int]  # values by field, and how many were dropped
_NO_FIELDS: _Fields = ({}, 0)


class _Suffix(Struct, frozen=True):
    """What is decoded behind the instruction for one text."""

    tokens: Int32s
    body: str  # the text as the model reads it, but that a line end stands where it was cut
    truncated: bool
    precedent: Values | None  # the fields it will likely have

    @property
    def work(self) -> int:
        """How long it takes to answer, in tokens read."""
        return len(self.tokens) + (0 if self.precedent is None else _FIELDS_WORK)


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
        vocabulary, task = model.vocabulary, release.task
        self._frame = frame(release.prompt, task, vocabulary, model.chat_template)
        self._joint = vocabulary.encode(_JOINT)
        spellings = [[vocabulary.encode(lead + name) for lead in self._frame.answer_leads] for name in task.label_names]
        self._labels = LabelTree(task.label_names, spellings)
        self._label_tokens = [tuple(ways[0]) for ways in spellings]
        self._program = None
        if task.fields and task.fields_for:
            self._program = FieldProgram(task, vocabulary.encode, vocabulary.token_of_piece, vocabulary.pieces)
        cells = min(context_tokens, model.trained_context)
        self._event_tokens = cells - len(self._frame.before) - len(self._frame.after) - _ANSWER_TOKENS
        if self._event_tokens < _EVENT_TOKENS:
            raise ConfigError(
                f"{model.path}: of {cells} tokens of context the instruction takes {len(self._frame.before)} and the "
                f"answer {_ANSWER_TOKENS}, which leaves an event {max(self._event_tokens, 0)}; raise `context_tokens` "
                f"by {_EVENT_TOKENS - self._event_tokens} or shorten the instruction"
            )
        self._precedents = Precedents()
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="lane") if threads > 1 else None
        self._lanes = [Lane(model, self._frame.before, cells) for _ in range(threads)]
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
        suffixes = {text: self._suffix(text) for text in dict.fromkeys(texts)}
        # Different texts may be the same once they are cut.
        distinct = list({suffix.tokens.tobytes(): suffix for suffix in suffixes.values()}.values())
        ordered = [distinct[i] for i in order_of([suffix.tokens for suffix in distinct])]
        work = [suffix.work for suffix in ordered]
        parts = [ordered[begin:end] for begin, end in shares(work, self._parts(sum(work)))]
        if self._pool is None or len(parts) == 1:
            answers = [self._read(self._lanes[0], part) for part in parts]
        else:
            futures = [self._pool.submit(self._read_on_a_free_lane, part) for part in parts]
            wait(futures)  # all of them: a lane that still runs is not free, whatever happened to another
            answers = [future.result() for future in futures]
        opinions = {
            suffix.tokens.tobytes(): opinion
            for part, answer in zip(parts, answers, strict=True)
            for suffix, opinion in zip(part, answer, strict=True)
        }
        # Texts that differ may read the same.
        grounded = {
            text: _grounded(opinions[suffix.tokens.tobytes()], suffix, text, self._release.task)
            for text, suffix in suffixes.items()
        }
        return [grounded[text] for text in texts]

    def _parts(self, work: int) -> int:
        """Return into how many parts a batch is cut: several per lane where there is work for them.

        Sorting puts like events side by side, those with fields too, so that halves of a batch may differ in work by
        far; of smaller parts, whoever is done takes the next.
        """
        lanes = len(self._lanes)
        return 1 if lanes == 1 else lanes * min(max(work // (lanes * _PART_TOKENS), 1), _PARTS_PER_LANE)

    def _read_on_a_free_lane(self, part: Sequence[_Suffix]) -> list[Opinion]:
        lane = self._free.pop()  # there is one: the pool has no more threads than there are lanes
        try:
            return self._read(lane, part)
        finally:
            self._free.append(lane)

    def _suffix(self, text: str) -> _Suffix:
        vocabulary, limit = self._model.vocabulary, self._event_tokens
        lead = self._frame.lead
        body = text.translate(_FOLDED) if self._frame.folds_lines else text
        ends = ends_of_text(body, limit * _BYTES_PER_TOKEN)
        tokens = vocabulary.encode(lead + _JOINT.join(ends))
        if len(ends) == 1 and len(tokens) <= limit:
            return _Suffix(self._array(tokens), body, False, self._precedents.likely(body))
        token_ends = ends_of_tokens(tokens, limit - len(self._joint), vocabulary.pieces)
        if len(token_ends) > 1:
            ends = [
                b"".join(vocabulary.pieces[token] for token in end).decode("utf-8", "replace") for end in token_ends
            ]
            tokens = [*token_ends[0], *self._joint, *token_ends[1]]
        body = "\n".join(ends)
        return _Suffix(self._array(tokens), body, True, self._precedents.likely(body))

    def _array(self, tokens: Sequence[int]) -> Int32s:
        return np.array([*tokens, *self._frame.after], np.int32)

    def _read(self, lane: Lane, part: Sequence[_Suffix]) -> list[Opinion]:
        """Read sorted, distinct texts on one lane."""
        texts = [suffix.tokens for suffix in part]
        # A label of several questions is known only when all are answered, so fields take a second pass then.
        answers = self._all_answers(lane, texts) if len(self._labels.questions) > 1 else None
        if answers is not None and self._program is None:
            return [self._opinion(*pair, _NO_FIELDS) for pair in zip(part, answers, strict=True)]
        opinions: list[Opinion] = []
        with closing(lane.read(texts)) as stretches:
            for stretch in stretches:
                end = stretch.first + len(stretch.logits)
                suffixes = part[stretch.first : end]
                logs = self._root_answers(stretch.logits) if answers is None else answers[stretch.first : end]
                fields = self._fields(stretch, suffixes, logs)
                opinions += [self._opinion(*parts) for parts in zip(suffixes, logs, fields, strict=True)]
        return opinions

    def _root_answers(self, logits: Logits) -> list[Float64s]:
        """Return the log of each label's raw probability behind each text."""
        root = self._labels.questions[0].answers
        return [self._labels.read([row[root] - total]) for row, total in zip(logits, log_totals(logits), strict=True)]

    def _all_answers(self, lane: Lane, texts: Sequence[Int32s]) -> list[Float64s]:
        """Ask every question of the label tree behind every text; a text with a question's path is a text too."""
        questions = self._labels.questions
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
        return [self._labels.read(answer) for answer in answers]

    def _fields(self, stretch: Stretch, suffixes: Sequence[_Suffix], logs: Sequence[Float64s]) -> list[_Fields]:
        """Have fields written behind the texts of a stretch whose label wants them."""
        fields = [_NO_FIELDS] * len(suffixes)
        task, program = self._release.task, self._program
        if program is None:
            return fields
        labels = [_top(calibrate(log, self._release.calibration)) for log in logs]
        places = [place for place, label in enumerate(labels) if task.label_names[label] in task.fields_for]
        begun = [program.begin(suffixes[place].body, suffixes[place].precedent) for place in places]
        written = stretch.write(places, [self._label_tokens[labels[place]] for place in places], begun)
        for place, transcript in zip(places, written, strict=True):
            fields[place] = values, _ = transcript.values()
            if values != suffixes[place].precedent:
                self._precedents.remember(suffixes[place].body, values)
        return fields

    def _opinion(self, suffix: _Suffix, log_probabilities: Float64s, fields: _Fields) -> Opinion:
        return Opinion(
            probabilities=calibrate(log_probabilities, self._release.calibration),
            label_mass=min(1.0, float(np.exp(log_probabilities).sum())),
            fields=fields[0],
            truncated=suffix.truncated,
            ungrounded=fields[1],
        )


def _top(probabilities: Sequence[float]) -> int:
    return max(range(len(probabilities)), key=probabilities.__getitem__)


def _grounded(opinion: Opinion, suffix: _Suffix, text: str, task: Task) -> Opinion:
    """Drop values that stand only in the text as the model reads it, cut or folded, and not as it came."""
    if suffix.body == text:
        return msgspec.structs.replace(opinion, truncated=suffix.truncated)
    choices = {field.name: field.choices for field in task.fields}
    kept = {
        name: tuple(value for value in values if value in choices[name] or occurs(value, text))
        for name, values in opinion.fields.items()
    }
    dropped = sum(map(len, opinion.fields.values())) - sum(map(len, kept.values()))
    fields = {name: values for name, values in kept.items() if values}
    ungrounded = opinion.ungrounded + dropped
    return msgspec.structs.replace(opinion, fields=fields, ungrounded=ungrounded, truncated=suffix.truncated)
