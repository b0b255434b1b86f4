"""A release as a page to look at: every figure and chart in one HTML file that asks for nothing from outside."""

import math
import re
import unicodedata
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from models.contracts.release import Release
from quantize import findings
from quantize.compress import Trial
from quantize.figures import Figures
from quantize.measure import SourceScores
from quantize.pages import page
from quantize.recipe import Recipe

_MOST_LABELS = 20  # then only the weakest are open to view
_WEAKEST = 15
_LARGEST_MATRIX = 12  # labels; of more, the most frequent confusions are listed
_MOST_CONFUSIONS = 20
_MOST_SOURCES = 40
_WORST_SOURCES = 10
_FEWEST_EVENTS = 8  # of a source: fewer say nothing of it
_LONGEST_NAME = 60
# Default-ignorable letters and signs, which no category tells: fillers, joiners, variation selectors.
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
_LABEL_GAP, _LABEL_WIDTH = 15.0, 190.0  # of the scatter chart's names, in its own units


class Part(Struct, frozen=True):
    """A stretch of a stranger's text, or the number of a character that would not be seen."""

    text: str
    hidden: bool


class Confusion(Struct, frozen=True):
    """Events of one label that got another."""

    true: str
    said: str
    events: int
    share: float  # of the events that have the label


class Outcome(Struct, frozen=True):
    """A candidate of quantization, and what became of it."""

    trial: Trial
    chosen: bool
    why: str


class Tick(Struct, frozen=True):
    at: float
    text: str


class Point(Struct, frozen=True):
    """A candidate in the scatter chart; `name_y` keeps its name off the others'."""

    outcome: Outcome
    x: float
    y: float
    name_y: float
    leftwards: bool


class Scatter(Struct, frozen=True):
    """Size against flips, in the chart's own units; a limit that lies outside is not drawn."""

    width: float
    height: float
    points: list[Point]
    across: list[Tick]
    upwards: list[Tick]
    most_megabytes: float | None
    most_flips: float | None


def report(recipe: Recipe, release: Release, figures: Figures, blocked: Sequence[str]) -> str:
    """Return the page."""
    labels = findings.label_rows(release, figures)
    told = [row for row in figures.sources if row.events >= _FEWEST_EVENTS]
    outcomes = _outcomes(recipe, figures)
    confusions = _confusions(figures)
    return page(
        "report.html.j2",
        recipe=recipe,
        recipe_text=msgspec.json.format(msgspec.json.encode(recipe), indent=2).decode(),
        release=release,
        figures=figures,
        blocked=blocked,
        findings=findings,
        decimal=findings.decimal,
        percent=findings.percent,
        parts=parts,
        cut=_cut,
        labels=labels,
        weakest=findings.worst_first(labels)[:_WEAKEST] if len(labels) > _MOST_LABELS else [],
        with_matrix=len(labels) <= _LARGEST_MATRIX,
        confusions=confusions[:_MOST_CONFUSIONS],
        pairs=len(confusions),
        fewest_events=_FEWEST_EVENTS,
        sources=figures.sources[:_MOST_SOURCES] if told else [],
        worst_sources=sorted(told, key=_accuracy)[:_WORST_SOURCES],
        outcomes=outcomes,
        scatter=_scatter(recipe, outcomes) if outcomes else None,
    )


def parts(text: str) -> list[Part]:
    """Return a text of which nothing is hidden: what has no shape, or turns the writing round, goes by its number."""
    found: list[Part] = []
    for character in text:
        hidden = character != " " and (unicodedata.category(character)[0] in "CZ" or bool(_UNSEEN.match(character)))
        if hidden:
            found.append(Part(f"U+{ord(character):04X}", hidden=True))
        elif found and not found[-1].hidden:
            found[-1] = Part(found[-1].text + character, hidden=False)
        else:
            found.append(Part(character, hidden=False))
    return found


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_NAME else f"{text[: _LONGEST_NAME - 1]}…"


def _accuracy(row: SourceScores) -> tuple[float, float, str]:
    return row.accuracy, row.macro_f1, row.source


def _confusions(figures: Figures) -> list[Confusion]:
    """Return what is taken for what, the most frequent first."""
    found = [
        Confusion(true, said, events, events / sum(row))
        for true, row in zip(figures.labels, figures.confusion, strict=True)
        for said, events in zip(figures.labels, row, strict=True)
        if events and true != said
    ]
    return sorted(found, key=lambda one: (-one.events, -one.share, one.true, one.said))


def _outcomes(recipe: Recipe, figures: Figures) -> list[Outcome]:
    """Return the candidates by size; of a model that came finished there are none."""
    if recipe.base.kind == "gguf":
        return []
    found = []
    for trial in sorted(figures.trials, key=lambda one: (one.megabytes, one.label_flips)):
        gate = recipe.gate
        missed = trial.misses(recipe.quantization, gate.max_label_flips, gate.max_calibration_error)
        chosen = trial.candidate.title == figures.chosen
        if missed:
            why = f"misses a limit: {'; '.join(missed)}"
        else:
            why = "the smallest that misses no limit" if chosen else "misses no limit, but is larger or slower"
        found.append(Outcome(trial, chosen, why))
    return found


def _scatter(recipe: Recipe, outcomes: Sequence[Outcome], width: float = 620.0, height: float = 250.0) -> Scatter:
    """Place the candidates; both axes begin at 0, so that distances are what they seem."""
    trials = [outcome.trial for outcome in outcomes]
    far = 1.15 * max(trial.megabytes for trial in trials)
    high = 1.2 * max(0.001, *(trial.label_flips for trial in trials))
    most_megabytes, most_flips = recipe.quantization.max_megabytes, recipe.gate.max_label_flips
    points: list[Point] = []
    for outcome in sorted(outcomes, key=lambda one: -one.trial.label_flips):
        x, y = width * outcome.trial.megabytes / far, height * (1 - outcome.trial.label_flips / high)
        above = [one.name_y for one in points if abs(one.x - x) < _LABEL_WIDTH]
        name_y = max([y, *(taken + _LABEL_GAP for taken in above)])
        points.append(Point(outcome, x, y, name_y, leftwards=x > width - _LABEL_WIDTH))
    return Scatter(
        width=width,
        height=height,
        points=points,
        across=[Tick(width * at / far, f"{at:g}") for at in _round_steps(far)],
        upwards=[Tick(height * (1 - at / high), f"{100 * at:g} %") for at in _round_steps(high)],
        most_megabytes=width * most_megabytes / far if most_megabytes <= far else None,
        most_flips=height * (1 - most_flips / high) if most_flips <= high else None,
    )


def _round_steps(top: float) -> list[float]:
    """Return four to ten round figures from 0 to `top`."""
    power = 10.0 ** math.floor(math.log10(top / 4))
    step = next(power * one for one in (5, 2, 1) if top / (power * one) >= 4)
    return [round(step * count, 12) for count in range(math.floor(top / step) + 1)]
