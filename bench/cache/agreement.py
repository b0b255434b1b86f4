"""How often a label from the cache is not the one that the model would have said, over a whole stream."""

import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from random import Random

from msgspec import Struct

from bench.cache.flow import replayed, stream_of
from bench.cache.steps import words
from bench.cache.stream import Sizes
from bench.row import Row
from models.contracts.release import Release
from models.contracts.verdict import Verdict
from models.llama import Model
from models.masking import CLOSE, OPEN, Masking
from models.release_file import read_release, release_path
from quantize import ask
from quantize.events import body_of

_TARGET = 0.001
_CHECKED = 2_000  # texts that are asked about although one of their wording was
_SHOWN = 5  # templates

Ask = Callable[[Sequence[str]], list[str]]
"""From bodies to the labels that the full model gives them."""


class Disagreement(Struct, frozen=True):
    """What the cache answered, and where the model says something else."""

    cached: int
    wrong: list[tuple[Verdict, str]]  # and what the model says
    superseded: int  # of the wrong ones, by a verdict of a higher revision
    wordings: int  # that the model was asked about
    checked: int  # texts asked about although one of their wording was
    otherwise: int  # of those, with another label than that

    @property
    def share(self) -> float:
        """Of the cached answers, how many are wrong."""
        return len(self.wrong) / max(1, self.cached)

    @property
    def share_otherwise(self) -> float:
        """Of the texts that were checked, to how many the label of their wording does not apply."""
        return self.otherwise / max(1, self.checked)


def rows(sizes: Sizes) -> list[Row]:
    """Judge the replays that are spread evenly over the stream, the first of them included."""
    path = release_path(sizes.release)
    with Model(path, vocabulary_only=True) as model:
        release = read_release(model)
    names = release.task.label_names

    def labels(bodies: Sequence[str]) -> list[str]:
        return [names[at] for at in ask.ask(path, release, bodies, tick=_said).chosen] if bodies else []

    judged = spread(sizes.judged, sizes.replays)
    found = disagreement(of_replays(replayed(sizes).verdicts(), judged, len(stream_of(sizes))), release, labels)
    _show(found)
    return [row(found, f"{len(judged)} of {sizes.replays} replays")]


def row(found: Disagreement, replays: str) -> Row:
    """Hold both shares to the target: for a release in which a key has one wording, the first can only be 0."""
    said = f"{found.wordings} wordings in {replays}, {found.superseded} taken back"
    return Row(
        name="cache_disagreement",
        value=found.share,
        unit=f"share of {found.cached}",
        peer=f"{said}; {found.otherwise} of {found.checked} texts unlike the first of their wording",
        passed=max(found.share, found.share_otherwise) <= _TARGET,
    )


def spread(count: int, of: int) -> set[int]:
    """Return so many numbers below `of`, evenly spread from 0 on."""
    return {at * of // min(count, of) for at in range(min(count, of))}


def disagreement(verdicts: Iterable[Verdict], release: Release, labels: Ask) -> Disagreement:
    """Hold every verdict from the cache against the model, which is asked once for each wording."""
    cached: list[tuple[Verdict, str]] = []
    revised: set[str] = set()
    of_wording: dict[str, str] = {}  # the first text of each
    others: dict[str, str] = {}  # every further text, and its wording
    for verdict in verdicts:
        if verdict.revision:
            revised.add(verdict.id)
        elif verdict.cached is not None:
            body = body_of(verdict.text)
            wording = words(body, release)
            cached.append((verdict, wording))
            if of_wording.setdefault(wording, body) != body:
                others[body] = wording
    truth = dict(zip(of_wording, labels(list(of_wording.values())), strict=True))
    checked = Random(len(others)).sample(sorted(others), min(_CHECKED, len(others)))
    again = labels(checked)
    wrong = [(verdict, truth[wording]) for verdict, wording in cached if verdict.label != truth[wording]]
    return Disagreement(
        cached=len(cached),
        wrong=wrong,
        superseded=sum(verdict.id in revised for verdict, _ in wrong),
        wordings=len(truth),
        checked=len(checked),
        otherwise=sum(label != truth[others[body]] for body, label in zip(checked, again, strict=True)),
    )


def of_replays(verdicts: Iterable[Verdict], judged: Collection[int], lines: int) -> Iterator[Verdict]:
    """Yield the verdicts of some replays, which came in the order of the stream, and all that take one back."""
    events = 0
    for verdict in verdicts:
        if verdict.revision:
            yield verdict
            continue
        if events // lines in judged:
            yield verdict
        events += 1


def _show(found: Disagreement) -> None:
    print(
        f"agreement: of {found.checked} texts asked about again, {found.otherwise} got another label than the first of "
        "their wording",
        file=sys.stderr,
    )
    mask = Masking().mask
    kinds = Counter(
        (masked.key, verdict.label, label)
        for verdict, label in found.wrong
        if (masked := mask(body_of(verdict.text))) is not None
    )
    for (key, label, own), times in kinds.most_common(_SHOWN):
        readable = key.replace(OPEN, "<").replace(CLOSE, ">")
        print(f"agreement: {times} are {label} from the cache and {own} by the model: {readable}", file=sys.stderr)


def _said(done: int, of: int) -> None:
    if done == of or done % 6400 == 0:
        print(f"agreement: asked {done} of {of}", file=sys.stderr)
