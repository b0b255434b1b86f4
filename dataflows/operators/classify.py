"""What a classifier says of a window of events: an opinion on each, or a dead letter for what it cannot read. Pure."""

from collections.abc import Sequence

from msgspec import Struct

from models.classifier import Classifier
from models.contracts.errors import InputError
from models.contracts.event import DeadLetter, Event
from models.contracts.opinion import Opinion
from models.contracts.release import Release


class Judged(Struct, frozen=True):
    """Events of one window, the opinion on each, and the release that holds them."""

    events: list[Event]
    opinions: list[Opinion]
    release: Release
    templates: Sequence[str | None] = ()  # which cache entry answered each; empty where none did
    revision: int = 0  # higher than 0 where it takes back what was said of these events


class Classified(Struct, frozen=True):
    """What became of one window of events."""

    judged: Judged | None
    letters: list[DeadLetter]


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
        gateway=event.gateway,
    )
