"""Writes transcripts behind texts: greedily, decoded ahead on a guess, and checked against the model's word.

Decoding eight tokens at once costs little more than one. So what is forced and what is likely is decoded together with
what is certain, and kept up to where the model goes another way: the same transcript in a third of the steps.
"""

from collections.abc import Sequence
from copy import copy

import numpy as np

from models.llama import Batch, Context, Logits
from models.transcript import Transcript

AHEAD_TOKENS = 24  # what is decoded on a guess, at most
NOTHING = np.empty((0, 0), np.float32)
_SEQUENCE = 1


class Scribe:
    """One sequence of a context, behind the instruction; neighbours that begin alike are not decoded twice."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._batch = Batch(context.rows)
        self._batch.first[:] = _SEQUENCE
        self._decoded: list[int] = []

    def forget(self) -> None:
        """Leave the sequence to others."""
        self._roll_back(0)

    def write(self, text: Sequence[int], transcript: Transcript) -> None:
        """Write behind a text until the transcript is done or the context full."""
        # The text's last token is decoded again if need be: its logits are asked for.
        self._roll_back(min(_shared(self._decoded, text), len(text) - 1))
        certain = list(text[len(self._decoded) :])
        while not transcript.done:
            guessed, asked, is_end = _ahead(transcript)
            answers = asked if is_end else [*asked, len(guessed)]
            behind = len(self._decoded) + len(certain)
            if self._context.kept + behind + len(guessed) > self._context.cells:
                return
            # All that is left may be forced: then there is nothing to ask.
            logits = self._decode(certain, guessed, answers) if answers else NOTHING
            agreed, word = _check(transcript, guessed, asked, logits)
            self._roll_back(behind + agreed)
            certain = [] if word is None else [word]

    def _decode(self, certain: list[int], guessed: list[int], asked: list[int]) -> Logits:
        """Decode and return the logits in front of those of the guessed that are asked for."""
        tokens, first_answer = certain + guessed, len(certain) - 1
        # What stands behind the last answer is not needed yet.
        tokens = tokens[: first_answer + asked[-1] + 1]
        start, batch = 0, self._batch
        while True:
            part = tokens[start : start + batch.capacity]
            size, position = len(part), self._context.kept + len(self._decoded)
            batch.token[:size] = part
            batch.position[:size] = np.arange(position, position + size)
            batch.wanted[:size] = 0
            last = start + size == len(tokens)
            if last:
                batch.wanted[[first_answer + place - start for place in asked]] = 1
            logits = self._context.decode(batch, 0, size)
            self._decoded += part
            start += size
            if last:
                return logits

    def _roll_back(self, length: int) -> None:
        if length < len(self._decoded):
            self._context.forget(_SEQUENCE, self._context.kept + length)
            del self._decoded[length:]


def _ahead(transcript: Transcript) -> tuple[list[int], list[int], bool]:
    """Return the tokens that are likely next, at which of them the model has a choice, and whether they are all."""
    likely = copy(transcript)
    guessed: list[int] = []
    asked: list[int] = []
    while not likely.done and len(guessed) < AHEAD_TOKENS:
        token = likely.guess()
        if token is None:
            break
        if len(likely.allowed()) > 1:
            asked.append(len(guessed))
        guessed.append(token)
        likely.advance(token)
    return guessed, asked, likely.done


def _check(
    transcript: Transcript, guessed: Sequence[int], asked: Sequence[int], logits: Logits
) -> tuple[int, int | None]:
    """Write what the model agrees with; return how many of the guessed that is, and its own word where it differs."""
    rows = iter(logits)
    for place, token in enumerate(guessed):
        if place in asked:
            word = _greedy(transcript, next(rows))
            if word != token:
                transcript.advance(word)
                return place, word
        transcript.advance(token)
    if transcript.done:
        return len(guessed), None
    word = _greedy(transcript, next(rows))
    transcript.advance(word)
    return len(guessed), word


def _greedy(transcript: Transcript, logits: Logits) -> int:
    allowed = transcript.allowed()
    return int(allowed[int(logits[np.asarray(allowed)].argmax())])


def _shared(left: Sequence[int], right: Sequence[int]) -> int:
    """Return how many tokens two sequences begin with in common."""
    same = 0
    for a, b in zip(left, right, strict=False):
        if a != b:
            break
        same += 1
    return same
