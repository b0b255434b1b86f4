"""What a release scores on a file of labelled events: the figures, and the tables that show them. Pure."""

from collections.abc import Iterator, Sequence

import numpy as np
from msgspec import Struct
from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from models.contracts.release import Release
from quantize import calibrate, measure
from quantize.ask import Answers
from quantize.labelled import Labelled
from quantize.measure import Estimate, FieldScores, LabelScores, SourceScores
from quantize.terminal import visible

_MOST_SOURCES = 20
_FEWEST_WITNESSES = 10  # of fewer, resamples are too much alike to say how far a figure may be off


class Majority(Struct, frozen=True):
    """What comes of answering every event with the label that the file has most of."""

    label: str
    accuracy: float
    macro_f1: float


class Measured(Struct, frozen=True, kw_only=True):
    """A release on one file. Intervals are over witnesses: events of one group are one."""

    release: str
    events: int
    witnesses: int
    accuracy: Estimate
    macro_f1: Estimate  # over the labels that the file has
    ece: Estimate  # mean gap between confidence and accuracy over bins of equally many events
    calibration_error: Estimate | None  # root mean square, less what chance adds; none where too few tell it
    majority: Majority
    accepted: float  # share, by the release's first policy
    error_among_accepted: Estimate | None
    by_label: dict[str, LabelScores]
    by_source: list[SourceScores] = []
    fields: dict[str, FieldScores] = {}
    field_events: int = 0  # that have fields in the file, and got the right label


def measured(release: Release, events: Sequence[Labelled], answers: Answers, *, by_source: bool) -> Measured:
    """Compare answers with what is true; with `by_source` the events' groups are sources, and get a row each."""
    names = release.task.label_names
    labels = np.array([names.index(event.label) for event in events], dtype=np.int64)
    groups = [event.group for event in events]
    _, witnesses = np.unique(groups, return_inverse=True)
    chosen, said = answers.chosen, answers.probabilities

    def macro_f1(chosen: calibrate.Labels, labels: calibrate.Labels) -> float:
        # That a resample lacks a rare label says nothing of how well it is told: its own labels count.
        return measure.macro_f1_of(chosen, labels, len(names)) * len(names) / len(np.unique(labels))

    most = int(np.bincount(labels).argmax())
    always = np.full_like(labels, most)
    accepted = calibrate.accepted(release.policy, said, answers.masses, names)
    wrong = chosen != labels
    fields, field_events = _fields(release, events, answers)
    return Measured(
        release=release.title,
        events=len(events),
        witnesses=len(np.unique(witnesses)),
        accuracy=measure.estimate_of_share(~wrong, witnesses),
        macro_f1=measure.opened(
            measure.estimate(lambda at: macro_f1(chosen[at], labels[at]), witnesses), ~wrong, witnesses
        ),
        ece=measure.estimate_of_error(
            lambda at: calibrate.expected_calibration_error(said[at], labels[at]), witnesses, ~wrong
        ),
        calibration_error=calibrate.calibration_error(said, labels, witnesses),
        majority=Majority(names[most], measure.accuracy(always, labels), macro_f1(always, labels)),
        accepted=float(accepted.mean()),
        error_among_accepted=(
            measure.estimate_of_share(wrong[accepted], witnesses[accepted]) if accepted.any() else None
        ),
        by_label=measure.label_scores(chosen, labels, names),
        by_source=measure.by_source(chosen, labels, groups, len(names)) if by_source else [],
        fields=fields,
        field_events=field_events,
    )


def _fields(release: Release, events: Sequence[Labelled], answers: Answers) -> tuple[dict[str, FieldScores], int]:
    """Score fields where the file has some and the label was right: a wrong label is counted already."""
    task = release.task
    read_off = [
        (answers.fields[at], event.fields)
        for at, event in enumerate(events)
        if event.fields and event.label in task.fields_for and task.label_names[answers.chosen[at]] == event.label
    ]
    if not read_off:
        return {}, 0
    given, wanted = zip(*read_off, strict=True)
    names = [field.name for field in task.fields]
    return measure.field_scores(given, wanted, names, annotated=False), len(read_off)


def tables(found: Measured, file: str) -> Iterator[RenderableType]:
    """Yield what a person reads."""
    witnesses = f"from {found.witnesses} sources" if found.by_source else f"{found.witnesses} of them different"
    yield Text(f"{found.release} on {visible(file)}: {found.events} events, {witnesses}", "bold")
    yield _whole(found)
    if found.witnesses < _FEWEST_WITNESSES:
        yield Text(
            f"So few say little of how far a figure may be off; {_FEWEST_WITNESSES} sources or kinds of event wanted"
        )
    yield _by_label(found)
    if found.by_source:
        yield _by_source(found)
    if found.fields:
        yield _by_field(found)


def _whole(found: Measured) -> Table:
    table = _table("", found.release, f"always `{found.majority.label}`")
    error, gap = found.error_among_accepted, found.calibration_error
    table.add_row("accuracy", str(found.accuracy), f"{found.majority.accuracy:.3f}")
    table.add_row("macro-F1", str(found.macro_f1), f"{found.majority.macro_f1:.3f}")
    table.add_row("ECE", str(found.ece), "")
    table.add_row("calibration error, less chance", "too few tell it" if gap is None else str(gap), "")
    table.add_row("accepted by its first policy", f"{found.accepted:.3f}", "")
    table.add_row("wrong among the accepted", "none accepted" if error is None else str(error), "")
    one = "the events of a source" if found.by_source else "near repeats"
    table.caption = f"in brackets: where it lies with 95 % confidence; {one} count as one"
    return table


def _by_label(found: Measured) -> Table:
    table = _table("label", "precision", "recall", "F1", "events")
    for name, score in found.by_label.items():
        table.add_row(name, f"{score.precision:.3f}", f"{score.recall:.3f}", f"{score.f1:.3f}", str(score.events))
    return table


def _by_source(found: Measured) -> Table:
    table = _table("source", "accuracy", "macro-F1", "events")
    for row in found.by_source[:_MOST_SOURCES]:
        table.add_row(Text(visible(row.source)), f"{row.accuracy:.3f}", f"{row.macro_f1:.3f}", str(row.events))
    if (more := len(found.by_source) - _MOST_SOURCES) > 0:
        table.caption = f"and {more} smaller ones; --json has them all"
    return table


def _by_field(found: Measured) -> Table:
    table = _table("field", "precision", "recall", "values")
    for name, score in found.fields.items():
        table.add_row(name, f"{score.precision:.3f}", f"{score.recall:.3f}", str(score.wanted))
    table.caption = f"of the {found.field_events} events that have fields and got the right label"
    return table


def _table(first: str, *others: str) -> Table:
    table = Table(box=SIMPLE_HEAD, caption_justify="left")
    table.add_column(first, overflow="ellipsis")
    for name in others:
        table.add_column(name, justify="right")
    return table
