"""Asks a model through the classifier that a gateway runs: what is measured is what is served."""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from models.classifier import Classifier
from models.contracts.opinion import Opinion
from models.contracts.release import Release
from models.llama import Model
from models.opening import classifier_of
from quantize.calibrate import Floats, Labels

_AT_ONCE = 64  # as a gateway under a backlog
CONTEXT_TOKENS = 1_024  # the gateway's default

Tick = Callable[[int, int], None]  # how many of how many are done


class Answers(Struct, frozen=True):
    """What a model said of some events, in order."""

    probabilities: Floats  # a row per event, a column per label
    masses: Floats
    fields: list[dict[str, tuple[str, ...]]]

    @property
    def chosen(self) -> Labels:
        return np.asarray(self.probabilities.argmax(axis=1), dtype=np.int64)


def ask(
    model: Path, release: Release, bodies: Sequence[str], *, fields: bool = False, tick: Tick = lambda _done, _all: None
) -> Answers:
    """Classify `bodies` on all cores.

    Fields take time and change no label, so they are read off only where they are asked for.

    Raises:
        UntrustedError: the model cannot answer the release's task.
    """
    with Asked(model, release, fields=fields, threads=os.cpu_count() or 1) as classifier:
        return answers_of(classifier, bodies, tick)


def answers_of(classifier: Classifier, bodies: Sequence[str], tick: Tick = lambda _done, _all: None) -> Answers:
    """Classify `bodies` in batches, as they come."""
    opinions: list[Opinion] = []
    for begin in range(0, len(bodies), _AT_ONCE):
        opinions += classifier.classify(bodies[begin : begin + _AT_ONCE])
        tick(len(opinions), len(bodies))
    return Answers(
        probabilities=np.array([opinion.probabilities for opinion in opinions], dtype=np.float64),
        masses=np.array([opinion.label_mass for opinion in opinions], dtype=np.float64),
        fields=[opinion.fields for opinion in opinions],
    )


def events_per_s(model: Path, release: Release, bodies: Sequence[str]) -> float:
    """Return how many different events one thread labels in a second; the fastest of three goes."""
    distinct = list(dict.fromkeys(bodies))
    with Asked(model, release, fields=False) as classifier:
        classifier.classify(distinct[:2])
        fastest = float("inf")
        for _ in range(3):
            begun = time.perf_counter()
            answers_of(classifier, distinct)
            fastest = min(fastest, time.perf_counter() - begun)
    return len(distinct) / fastest


class Asked:
    """A classifier, closed behind a `with`."""

    def __init__(
        self, model: Path, release: Release, *, fields: bool, threads: int = 1, context_tokens: int = CONTEXT_TOKENS
    ) -> None:
        if not fields:
            release = replace(release, task=replace(release.task, fields_for=()))
        loaded = Model(model)
        try:
            # Nothing is remembered: what is measured is what the model takes for each text.
            self._classifier = classifier_of(
                loaded, release, threads=threads, context_tokens=context_tokens, readings=0
            )
        except Exception:
            loaded.close()
            raise

    def __enter__(self) -> Classifier:
        return self._classifier

    def __exit__(self, *_: object) -> None:
        self._classifier.close()
