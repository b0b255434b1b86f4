"""Where two releases of one task differ: how often, which labels, who is right, and the surest examples. Pure."""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from msgspec import Struct
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from scipy.stats import binomtest

from quantize import measure
from quantize.calibrate import Flags, Floats, Labels
from quantize.events import body_of
from quantize.labelled import phrases_of
from quantize.measure import Estimate
from quantize.terminal import visible

_MOST_COLUMNS = 8  # of a matrix that a terminal shows; of more labels, the most frequent pairs
_MOST_PAIRS = 20


class Side(Struct, frozen=True):
    """One of the two releases, and how often it is right, where that is known."""

    release: str
    accuracy: Estimate | None = None


class McNemar(Struct, frozen=True):
    """On how many kinds of events only one of the two is right, and how likely so uneven a split is by chance."""

    only_a: int
    only_b: int
    p_value: float


class Example(Struct, frozen=True):
    """An event on which they differ."""

    text: str
    truth: str | None
    a: str
    a_confidence: float
    b: str
    b_confidence: float


class Differences(Struct, frozen=True, kw_only=True):
    """Two releases on the same events."""

    a: Side
    b: Side
    events: int
    witnesses: int  # events that nearly repeat one another are one
    labels: tuple[str, ...]
    differ: Estimate  # share of the events
    matrix: list[list[int]]  # by row what A says, by column what B says
    mcnemar: McNemar | None = None
    examples: list[Example] = []


def differences(
    releases: Sequence[str],
    names: tuple[str, ...],
    texts: Sequence[str],
    said: Sequence[Floats],
    truth: Sequence[str] | None,
    *,
    most_examples: int,
) -> Differences:
    """Compare what two releases said of the same texts; columns of both are labels in the order of `names`."""
    _, witnesses = np.unique([" ".join(sorted(phrases_of(body_of(text)))) for text in texts], return_inverse=True)
    a, b = (np.asarray(one.argmax(axis=1), dtype=np.int64) for one in said)
    sure_a, sure_b = (one.max(axis=1) for one in said)
    sides = [Side(release) for release in releases]
    test = None
    if truth is not None:
        right_a, right_b = (chosen == [names.index(label) for label in truth] for chosen in (a, b))
        rates = [measure.estimate_of_share(right, witnesses) for right in (right_a, right_b)]
        sides = [Side(release, rate) for release, rate in zip(releases, rates, strict=True)]
        test = mcnemar(right_a, right_b, witnesses)
    return Differences(
        a=sides[0],
        b=sides[1],
        events=len(texts),
        witnesses=len(np.unique(witnesses)),
        labels=names,
        differ=measure.estimate_of_share(a != b, witnesses),
        matrix=measure.confusion(b, a, len(names)),
        mcnemar=test,
        examples=[
            Example(
                text=texts[at],
                truth=None if truth is None else truth[at],
                a=names[a[at]],
                a_confidence=round(float(sure_a[at]), 4),
                b=names[b[at]],
                b_confidence=round(float(sure_b[at]), 4),
            )
            for at in surest(a != b, sure_a, sure_b)[:most_examples]
        ],
    )


def surest(differ: Flags, a: Floats, b: Floats) -> list[int]:
    """Return where they differ, first where the less sure of the two is the surest."""
    least, most = np.minimum(a, b), np.maximum(a, b)
    return sorted(np.flatnonzero(differ).tolist(), key=lambda at: (-least[at], -most[at], at))


def mcnemar(a_right: Flags, b_right: Flags, witnesses: Labels) -> McNemar:
    """Return McNemar's exact test over witnesses: one counts for the release that is right more often on its events.

    Near repeats stand or fall together; each counted for itself would make chance look like a finding.
    """
    _, kinds = np.unique(witnesses, return_inverse=True)
    ahead = np.bincount(kinds, weights=np.asarray(a_right, np.float64) - np.asarray(b_right, np.float64))
    only_a, only_b = int((ahead > 0).sum()), int((ahead < 0).sum())
    return McNemar(only_a, only_b, exact_p(only_a, only_b))


def exact_p(one: int, other: int) -> float:
    """Return how likely a fair coin splits as unevenly or more so, to either side."""
    tosses = one + other
    return float(binomtest(min(one, other), tosses).pvalue) if tosses else 1.0


def tables(found: Differences, file: str) -> Iterator[RenderableType]:
    """Yield what a person reads."""
    sides = (("A", found.a), ("B", found.b))
    yield Text(f"{visible(file)}: {found.events} events, {found.witnesses} of them different", "bold")
    for letter, side in sides:
        right = f"  right on {side.accuracy}" if side.accuracy else ""
        yield Text(f"  {letter}  {side.release}{right}")
    differing = sum(map(sum, found.matrix)) - sum(row[at] for at, row in enumerate(found.matrix))
    yield Text(f"\nlabels differ on {differing} of {found.events} events: {found.differ}")
    if found.mcnemar is not None:
        yield _verdict(found.mcnemar)
    if differing:
        yield _matrix(found) if len(found.labels) <= _MOST_COLUMNS else _pairs(found)
    if found.examples:
        yield Text("where they differ, the surest first\n")
        yield from map(_example, found.examples)


def _verdict(test: McNemar) -> Text:
    return Text(
        f"only A is right on {test.only_a} kinds of events, only B on {test.only_b}; "
        f"p = {test.p_value:.3g} that chance alone splits them so unevenly (McNemar's exact test)"
    )


def _matrix(found: Differences) -> Table:
    table = Table(box=SIMPLE_HEAD)
    table.add_column("A says, B says:")
    for name in found.labels:
        table.add_column(name, justify="right")
    for at, (name, row) in enumerate(zip(found.labels, found.matrix, strict=True)):
        cells = [Text(str(count), "dim" if other == at or not count else "bold") for other, count in enumerate(row)]
        table.add_row(name, *cells)
    return table


def _pairs(found: Differences) -> Table:
    pairs = Counter({
        (mine, theirs): count
        for mine, row in zip(found.labels, found.matrix, strict=True)
        for theirs, count in zip(found.labels, row, strict=True)
        if mine != theirs and count
    })  # fmt: skip
    table = Table("A says", "B says", box=SIMPLE_HEAD, caption_justify="left")
    table.add_column("events", justify="right")
    for (mine, theirs), count in pairs.most_common(_MOST_PAIRS):
        table.add_row(mine, theirs, str(count))
    if (more := len(pairs) - _MOST_PAIRS) > 0:
        table.caption = f"and {more} rarer pairs; --json has them all"
    return table


def _example(one: Example) -> Group:
    """Return who says what, and below it the event's body, cut to the width there is."""
    said = [("A", one.a, f"{one.a_confidence:.2f}"), ("B", one.b, f"{one.b_confidence:.2f}")]
    said += [("truth", one.truth, "")] if one.truth else []
    head = Text("  ").join(Text.assemble((f"{who} ", "dim"), (label, "bold"), f" {sure}") for who, label, sure in said)
    body = Text(f"   {visible(body_of(one.text))}", no_wrap=True, overflow="ellipsis")
    return Group(head, body)
