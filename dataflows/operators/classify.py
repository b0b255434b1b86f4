"""Events in; opinions, and dead letters for what no classifier can read, out.

The classifier in force is read anew for every window, so one that replaces another is in use at the next window, and
every window of answers knows which release made it. A classifier that is closed while a window waits for it says that
it is unavailable, and the retry finds its successor.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from time import perf_counter

import structlog
from bytewax import operators as op
from bytewax.dataflow import Stream, operator
from msgspec import Struct

from dataflows.backoff import Backoff
from dataflows.observer import Observer
from models.classifier import Classifier, Current
from models.contracts.errors import InputError, UnavailableError
from models.contracts.event import DeadLetter, Event
from models.contracts.opinion import Opinion
from models.contracts.release import Release

log = structlog.get_logger()

PATIENCE = Backoff(first_s=0.2, most_s=5.0, attempts=8)  # about 17 s; then the flow stops, and nothing is lost by that


class Judged(Struct, frozen=True):
    """Events of one window, the opinion on each, and the release that holds them."""

    events: list[Event]
    opinions: list[Opinion]
    release: Release


class Classified(Struct, frozen=True):
    """What became of one window of events."""

    judged: Judged | None
    letters: list[DeadLetter]


@dataclass(frozen=True)
class ClassifiedStreams:
    """Windows of opinions, and lists of dead letters; none is empty."""

    judged: Stream[Judged]
    letters: Stream[list[DeadLetter]]


@operator
def classify(
    step_id: str,
    up: Stream[list[Event]],
    *,
    classifier: Current[Classifier],
    window_events: int,
    wait: Callable[[float], bool],
    observer: Observer,
) -> ClassifiedStreams:
    """Ask the classifier in force about `window_events` at a time; `wait(seconds)` returns whether to stop."""

    def ask(window: list[Event]) -> Classified:
        began = perf_counter()
        classified = _patiently(lambda: classify_window(window, classifier.get()), wait)
        observer.classified(len(window), perf_counter() - began)
        if classified.letters:
            observer.buried(classified.letters)
        return classified

    def step(events: list[Event]) -> Iterator[Classified]:
        return (ask(events[at : at + window_events]) for at in range(0, len(events), window_events))

    parted = op.flat_map("ask", up, step)
    return ClassifiedStreams(
        judged=op.filter_map("judged", parted, lambda classified: classified.judged),
        letters=op.filter_map("letters", parted, lambda classified: classified.letters or None),
    )


def classify_window(events: list[Event], classifier: Classifier) -> Classified:
    """Return an opinion on each event, or a dead letter for each that the classifier refuses.

    Raises:
        UnavailableError: the classifier cannot take texts now.
    """
    try:
        opinions = classifier.classify([event.body for event in events])
    except InputError as error:
        return _without_the_poison(events, classifier, error)
    if len(opinions) != len(events):
        raise RuntimeError(
            f"{classifier.release.title}: {len(opinions)} opinions on {len(events)} texts; stopped the flow"
        )
    return Classified(Judged(events, opinions, classifier.release), [])


def _without_the_poison(events: list[Event], classifier: Classifier, error: InputError) -> Classified:
    """Halve what was refused until each refused event stands alone: about 2 log2(n) calls for one of n."""
    if len(events) == 1:
        return Classified(None, [_refused(events[0], error)])
    middle = len(events) // 2
    halves = [classify_window(half, classifier) for half in (events[:middle], events[middle:])]
    judged = [half.judged for half in halves if half.judged]
    letters = [letter for half in halves for letter in half.letters]
    if not judged:
        return Classified(None, letters)
    return Classified(
        Judged(
            [event for part in judged for event in part.events],
            [opinion for part in judged for opinion in part.opinions],
            classifier.release,
        ),
        letters,
    )


def _refused(event: Event, error: InputError) -> DeadLetter:
    return DeadLetter(
        id=event.id,
        source=event.source,
        received_at_ms=event.received_at_ms,
        reason="refused-by-classifier",
        detail=str(error),
        raw=event.text.encode("utf-8", "surrogatepass"),
        topic=event.topic,
    )


def _patiently(attempt: Callable[[], Classified], wait: Callable[[float], bool]) -> Classified:
    try:
        return attempt()
    except UnavailableError as error:
        problem = error
    for delay_s in PATIENCE.delays(Random()):  # noqa: S311 - jitter, not a secret
        log.warning("classifier_unavailable", reason=str(problem), wait_s=round(delay_s, 1))
        if wait(delay_s):
            raise problem
        try:
            return attempt()
        except UnavailableError as error:
            problem = error
    raise problem
