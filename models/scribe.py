"""Writes transcripts behind texts: many at once, decoded ahead on a guess, and checked against the model's word.

Decoding eight tokens at once costs little more than one. So several transcripts go on side by side, and of each what
is forced and what is likely is decoded together with what is certain, and kept up to where the model goes another way:
the same transcripts in a fraction of the steps.
"""

from collections import deque
from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from models.llama import Batch, Context, Logits
from models.transcript import Transcript

_AT_ONCE = 8
_AHEAD_TOKENS = (2, 64)  # what is decoded of a transcript on a guess: less after a wrong one, more after a right one
_VALUES_AHEAD = 1  # how many values are guessed in a row: that a field is absent is the least certain of guesses

_NOTHING = np.empty((0, 0), np.float32)


class Job(Struct, frozen=True):
    """A transcript to be written behind a text whose sequence is in the context."""

    sequence: int
    length: int  # of the text, behind the instruction
    label: tuple[int, ...]  # what the model is taken to have answered
    transcript: Transcript


class _Ahead(Struct, frozen=True):
    """What is likely written next."""

    guessed: list[int]
    asked: list[tuple[int, Transcript]]  # where the model has a choice: in front of which guess, and what is written
    end: Transcript  # with all that is guessed


class _Writing:
    """A job that has begun: what is decoded of it, and what is decoded next."""

    def __init__(self, number: int, job: Job) -> None:
        self.number, self.job = number, job
        self.transcript = job.transcript.copy()
        self.decoded = 0  # tokens behind the text
        self.reach = _AHEAD_TOKENS[1]
        self.certain = list(job.label)
        self.look_ahead()

    def look_ahead(self) -> None:
        """Guess what is next; it is asked where there is a choice, and behind the last if that is not the end."""
        self.ahead = _ahead(self.transcript, self.reach)
        asked = self.ahead.asked
        # What stands behind the last question need not be decoded.
        self.tokens = [*self.certain, *self.ahead.guessed][: len(self.certain) + asked[-1][0]] if asked else []


class Scribe:
    """Writes in a context that somebody else reads texts in."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._batch = Batch(context.rows)

    def write(self, jobs: Sequence[Job], room: int) -> list[Transcript]:
        """Return the transcripts, written within `room` cells; one that does not fit alone ends early."""
        waiting = deque(enumerate(jobs))
        active: list[_Writing] = []
        written = [job.transcript for job in jobs]
        at_once = _AT_ONCE
        while waiting or active:
            while waiting and len(active) < at_once:
                active.append(_Writing(*waiting.popleft()))
            finished: list[_Writing] = []
            if step := self._fitting(active, room):
                self._decode(step)
                finished = [writing for writing in step if writing.transcript.done]
            elif len(active) == 1:
                finished = active
            else:
                # They hold the room that each other needs: the last makes some, and starts over later.
                last = active.pop()
                self._roll_back(last, 0)
                waiting.appendleft((last.number, last.job))
                at_once = len(active)
            for writing in finished:
                self._roll_back(writing, 0)
                written[writing.number] = writing.transcript
            active = [writing for writing in active if writing not in finished]
        return written

    def _fitting(self, active: Sequence[_Writing], room: int) -> list[_Writing]:
        """Return the first of them that fit one decode and the room that is left."""
        left = min(self._batch.capacity, room - sum(writing.decoded for writing in active))
        step = []
        for writing in active:
            left -= len(writing.tokens)
            if left >= 0:
                step.append(writing)
        return step

    def _decode(self, step: Sequence[_Writing]) -> None:
        batch, row = self._batch, 0
        batch.wanted[:] = 0
        for writing in step:
            size, position = len(writing.tokens), self._context.kept + writing.job.length + writing.decoded
            batch.token[row : row + size] = writing.tokens
            batch.position[row : row + size] = np.arange(position, position + size)
            batch.first[row : row + size] = writing.job.sequence
            batch.wanted[[row + len(writing.certain) - 1 + place for place, _ in writing.ahead.asked]] = 1
            row += size
        logits = self._context.decode(batch, 0, row) if row else _NOTHING
        for writing in step:
            questions = len(writing.ahead.asked)
            self._settle(writing, logits[:questions])
            logits = logits[questions:]

    def _settle(self, writing: _Writing, logits: Logits) -> None:
        """Keep what the model agrees with and go on with its own word."""
        guesses = len(writing.ahead.guessed)
        writing.transcript, agreed, word = _check(writing.ahead, logits)
        before = writing.decoded + len(writing.certain)
        writing.decoded += len(writing.tokens)
        self._roll_back(writing, before + agreed)
        writing.certain = [] if word is None else [word]
        least, most = _AHEAD_TOKENS
        writing.reach = min(2 * writing.reach, most) if agreed == guesses else max(writing.reach // 2, least)
        if not writing.transcript.done:
            writing.look_ahead()

    def _roll_back(self, writing: _Writing, decoded: int) -> None:
        if decoded < writing.decoded:
            self._context.forget(writing.job.sequence, self._context.kept + writing.job.length + decoded)
            writing.decoded = decoded


def _ahead(transcript: Transcript, reach: int) -> _Ahead:
    """Go on as the model likely will."""
    likely = transcript.copy()
    guessed: list[int] = []
    asked: list[tuple[int, Transcript]] = []
    values = 0
    while not likely.done and len(guessed) < reach:
        values += likely.at_value
        if values > _VALUES_AHEAD and not likely.has_precedent:
            break
        token = likely.guess()
        if token is None:
            break
        if len(likely.allowed()) > 1:
            asked.append((len(guessed), likely.copy()))
        guessed.append(token)
        likely.advance(token)
    if not likely.done:
        asked.append((len(guessed), likely))
    return _Ahead(guessed, asked, likely)


def _check(ahead: _Ahead, logits: Logits) -> tuple[Transcript, int, int | None]:
    """Return what the model agrees with, how many guesses that is, and its own word behind them, if there is one."""
    for (place, transcript), row in zip(ahead.asked, logits, strict=True):
        word = _greedy(transcript, row)
        if place == len(ahead.guessed) or word != ahead.guessed[place]:
            transcript.advance(word)
            return transcript, place, word
    return ahead.end, len(ahead.guessed), None


def _greedy(transcript: Transcript, logits: Logits) -> int:
    allowed = transcript.allowed()
    return int(allowed[int(logits[np.asarray(allowed)].argmax())])
