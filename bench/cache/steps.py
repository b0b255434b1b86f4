"""The flow's own steps over lines at hand: decoded, then answered by a cache and a classifier, window by window."""

from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct

from dataflows.cache.verdict_cache import VerdictCache
from dataflows.connectors.batch import Batch
from dataflows.observer import Unobserved
from dataflows.operators.answer import answer_window
from dataflows.operators.decode import decode_records
from models.classifier import Classifier
from models.contracts.event import Event
from models.contracts.opinion import Opinion
from models.contracts.policy import Policy
from models.contracts.release import Release
from models.wording import words_of

WINDOW = 256  # events: a gateway's default
_NOW_MS = 1_767_225_600_000  # stamps without a year are read as of then; no body depends on it


class Answer(Struct, frozen=True):
    """What was said of an event, and which template said it."""

    event: Event
    opinion: Opinion
    template: str | None


def events_of(texts: Sequence[str], start: int = 0) -> list[Event]:
    """Decode lines as they come from a source; they are numbered from `start`, so that no two have one id."""
    ids = [f"bench.{start + at}" for at in range(len(texts))]
    records = [text.encode("utf-8", "surrogatepass") for text in texts]
    return decode_records(Batch(source="bench", received_at_ms=_NOW_MS, records=records, ids=ids)).events


def answers(
    events: Sequence[Event], classifier: Classifier, policy: Policy, cache: VerdictCache, window: int = WINDOW
) -> Iterator[Answer]:
    """Answer events as the flow does; what is taken back later is left out."""
    for at in range(0, len(events), window):
        for judged in answer_window(events[at : at + window], classifier, policy, cache, Unobserved()).judged:
            if judged.revision == 0:
                templates = judged.templates or [None] * len(judged.events)
                yield from map(Answer, judged.events, judged.opinions, templates)


def share_cached(said: Iterable[Answer]) -> float:
    """Return the share of answers that no model gave."""
    cached = [answer.template is not None for answer in said]
    return sum(cached) / len(cached)


def label_of(opinion: Opinion, release: Release) -> str:
    """Return the most probable label."""
    return release.task.label_names[opinion.probabilities.index(max(opinion.probabilities))]


def words(body: str, release: Release) -> str:
    """Return what a release reads of a body: two of one wording have the same tokens, so the same label."""
    return words_of(body, release.prompt.wording).text


class Remembering:
    """A `Classifier` that asks another once for each wording, so that a long stream can be asked about in minutes.

    Fields hold words of their own text, so an opinion whose label has some is remembered for that text alone.
    """

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier
        self._by_words: dict[str, Opinion] = {}
        self._by_text: dict[str, Opinion] = {}

    @property
    def release(self) -> Release:
        return self._classifier.release

    def classify(self, texts: Sequence[str]) -> list[Opinion]:
        """Return one opinion per text, in order."""
        release, by_words, by_text = self.release, self._by_words, self._by_text
        read = {text: words(text, release) for text in texts}
        new = [text for text in read if read[text] not in by_words and text not in by_text]
        for text, opinion in zip(new, self._classifier.classify(new), strict=True):
            if label_of(opinion, release) in release.task.fields_for:
                by_text[text] = opinion
            else:
                by_words[read[text]] = opinion
        return [by_text.get(text) or by_words[read[text]] for text in texts]

    def close(self) -> None:
        self._classifier.close()
