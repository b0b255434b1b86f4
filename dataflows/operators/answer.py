"""Events in; opinions on them, from the cache or from the classifier, and dead letters for what neither can read, out.

A window is asked about in a few goes: what the cache cannot answer, what waited for those answers and has to be asked
after all, and what an audit has cast doubt on, in this window and in earlier ones. Its events keep their order.
Verdicts that are taken back follow in a window of their own, of a higher revision.

The classifier in force is read anew for every window, so one that replaces another is in use at the next window, and
every window of answers knows which release made it. A classifier that is closed while a window waits for it says that
it is unavailable, and the retry finds its successor.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter

from bytewax import operators as op
from bytewax.dataflow import Stream, operator
from msgspec import Struct

from dataflows.cache.verdict_cache import VerdictCache
from dataflows.observer import Observer
from dataflows.operators.classify import Judged, classify_window
from dataflows.operators.enrich import grounded, show
from dataflows.operators.patience import patiently
from models.classifier import Classifier, Current
from models.contracts.event import DeadLetter, Event
from models.contracts.opinion import Opinion
from models.contracts.policy import Policy
from models.contracts.scalars import EventId


class Answered(Struct, frozen=True):
    """What became of one window of events."""

    judged: list[Judged]  # the window, and then what is taken back of earlier ones
    letters: list[DeadLetter]


@dataclass(frozen=True)
class AnsweredStreams:
    """Windows of opinions, and lists of dead letters; none is empty."""

    judged: Stream[Judged]
    letters: Stream[list[DeadLetter]]


@operator
def answer(
    step_id: str,
    up: Stream[list[Event]],
    *,
    classifier: Current[Classifier],
    policy: Current[Policy],
    cache: VerdictCache,
    window_events: int,
    wait: Callable[[float], bool],
    observer: Observer,
) -> AnsweredStreams:
    """Answer `window_events` at a time; `wait(seconds)` returns whether to stop."""

    def ask(window: list[Event]) -> Answered:
        answered = patiently(
            lambda: answer_window(window, classifier.get(), policy.get(), cache, observer),
            wait,
            "classifier_unavailable",
        )
        if answered.letters:
            observer.buried(answered.letters)
        return answered

    def step(events: list[Event]) -> Iterator[Answered]:
        return (ask(events[at : at + window_events]) for at in range(0, len(events), window_events))

    parted = op.flat_map("ask", up, step)
    return AnsweredStreams(
        judged=op.flat_map("judged", parted, lambda answered: answered.judged),
        letters=op.filter_map("letters", parted, lambda answered: answered.letters or None),
    )


def answer_window(
    events: Sequence[Event], classifier: Classifier, policy: Policy, cache: VerdictCache, observer: Observer
) -> Answered:
    """Return an opinion on each event, or a dead letter for each that the classifier refuses.

    Raises:
        UnavailableError: the classifier cannot take texts now. What it has said of the window by then is not asked
            again where the cache knows it, and what is to be taken back is remembered.
    """
    letters: list[DeadLetter] = []

    def ask(some: list[Event], letters: list[DeadLetter]) -> dict[EventId, Opinion]:
        began = perf_counter()
        classified = classify_window(some, classifier)
        observer.classified(len(some), perf_counter() - began)
        letters += classified.letters
        judged = classified.judged
        if judged is None:
            return {}
        opinions = grounded(judged.events, judged.opinions, task)
        return dict(zip([event.id for event in judged.events], opinions, strict=True))

    task = classifier.release.task
    cache.follow(classifier.release, policy)
    turn = cache.recall(show(events, task))
    while turn.asked:
        cache.learn(turn, ask([turn.events[at] for at in turn.asked], letters))
    windows = []
    answered = [at for at, opinion in enumerate(turn.opinions) if opinion is not None]
    if answered:
        windows.append(
            Judged(
                [events[at] for at in answered],
                [opinion for opinion in turn.opinions if opinion is not None],
                classifier.release,
                [turn.templates[at] for at in answered],
            )
        )
    doubted = cache.doubted
    if doubted:
        # A classifier that refuses now what it was never asked leaves the verdict as it was.
        changed = cache.corrected(doubted, ask([recent.event for recent in doubted], []))
        if changed:
            windows.append(
                Judged([event for event, _ in changed], [said for _, said in changed], classifier.release, revision=1)
            )
    return Answered(windows, letters)
