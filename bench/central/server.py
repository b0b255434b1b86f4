"""What a server gains by events that are on their way together, and whether its answers can always be used."""

import sys
from contextlib import closing
from time import perf_counter

from bench.central.served import asking, events, served, windows
from bench.random_models import Shape
from bench.row import Row
from models.engines.openai_classifier import OpenAiClassifier

_RATIO = 3.0
# So small that a request costs what it costs to ask: with millions of weights two cores do nothing but compute.
_TINY = Shape(layers=2, width=64, heads=2, key_heads=2, hidden=128)
_WINDOW = 256
_TOGETHER = 2048
_APART = 256
_ROUNDS = 3
_EVENTS = 100_000


def rows() -> list[Row]:
    """Measure on one server: first its speed, then every answer of a hundred thousand."""
    with served(_TINY) as model:
        return [_concurrency(model.url), _failures(model.url)]


def _concurrency(url: str) -> Row:
    with closing(asking(url)) as together, closing(asking(url, concurrency=1)) as apart:
        ours, theirs = [], []
        for number in range(_ROUNDS):  # turn by turn, so that both meet the same machine
            ours.append(_seconds(together, events(_TOGETHER, start=number * _TOGETHER)) / _TOGETHER)
            theirs.append(_seconds(apart, events(_APART, start=number * _TOGETHER)) / _APART)
    ratio = min(theirs) / min(ours)
    return Row(
        name="server_concurrency",
        value=1 / min(ours),
        unit="events/s",
        peer=f"one request at a time: {1 / min(theirs):.0f}",
        ratio=ratio,
        passed=ratio >= _RATIO,
    )


def _failures(url: str) -> Row:
    failures, began = 0, perf_counter()
    with closing(asking(url)) as classifier:
        for at in range(0, _EVENTS, _WINDOW):
            texts = events(min(_WINDOW, _EVENTS - at), start=at)
            failures += sum(bool(opinion.unanswered) for opinion in classifier.classify(texts))
    print(f"parse_failures: {_EVENTS} events in {perf_counter() - began:.0f} s", file=sys.stderr)
    return Row(name="parse_failures", value=failures, unit=f"of {_EVENTS} events", passed=failures == 0)


def _seconds(classifier: OpenAiClassifier, texts: list[str]) -> float:
    began = perf_counter()
    for window in windows(texts, _WINDOW):
        if any(opinion.unanswered for opinion in classifier.classify(window)):
            raise RuntimeError("bench: an event was not answered; the figure is none")
    return perf_counter() - began
