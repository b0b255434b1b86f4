"""What a recipe's data come to: examples to learn from, to calibrate on and to measure on, and texts of other kinds."""

from collections import Counter
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from random import Random

import msgspec
import numpy as np
from msgspec import Struct

from models.contracts.errors import ConfigError, InputError
from models.contracts.task import Task
from models.release_file import digest_of
from quantize import labelled
from quantize.calibrate import Labels
from quantize.event_types import (
    EventType,
    corpus_digest,
    evenly,
    in_fold,
    of_other_vendors,
    read_event_types,
    without_look_alikes,
)
from quantize.events import body_of, content_of
from quantize.expand import Example, example_of, expand
from quantize.noise import draw
from quantize.recipe import Data

_CALIBRATION_SEED, _TEST_SEED, _QUIET_SEED = 71, 72, 73
_FOREIGN_TEST = 0.4  # of the kinds of foreign text


class HeldOut(Struct, frozen=True):
    """Examples of which nothing was learnt; those with the same witness are near copies, and count as one.

    Of event types the witness is the event type: its templates say the same thing.
    """

    examples: list[Example]
    witnesses: Labels

    @property
    def bodies(self) -> list[str]:
        return [example.body for example in self.examples]

    @property
    def digest(self) -> str:
        """Return the SHA-256 over the bodies in any order."""
        return sha256(b"\0".join(sorted(body.encode() for body in self.bodies))).hexdigest()


class _Foreign(Struct):
    """A text that the task is not about."""

    kind: str
    text: str


class Examples(Struct, frozen=True):
    """The folds of one data set."""

    draw: Callable[[int], list[Example]]  # what is learnt from, drawn anew for every number
    calibration: HeldOut
    test: HeldOut
    foreign: list[str]  # to learn from
    foreign_test: list[str]  # of kinds that are not learnt from
    digest: str
    quiet: HeldOut | None = None  # plain operation
    types: list[EventType] = []  # that are learnt from, where the data are event types
    doubt: str = ""  # what is to be said of the data, where something is doubtful


def examples_of(data: Data, root: Path, task: Task, seed: int) -> Examples:
    """Read and part the data.

    Raises:
        ConfigError: they are not there.
        InputError: they cannot be learnt from or measured on.
    """
    path = root / data.path
    if not path.exists():
        raise ConfigError(f"{path}: no such data")
    foreign, foreign_test = _foreign(root / data.foreign, data.foreign_without) if data.foreign else ([], [])
    if data.kind == "event-types":
        return _of_event_types(data, root, task, seed, foreign=foreign, foreign_test=foreign_test)
    events = labelled.read_labelled(path, task, data.group_by)
    folds = labelled.part(events, test=data.test, calibration=data.calibration, where=str(path))
    labels = [event.label for event in folds["train"]]
    labelled.check_proportions(labels, task, data.fewest_per_label, str(path), of=len(events))
    learnt = [_example(event, task) for event in folds["train"]]
    return Examples(
        draw=lambda _: learnt,
        calibration=_by_group(folds["calibration"], task),
        test=_by_group(folds["test"], task),
        foreign=foreign,
        foreign_test=foreign_test,
        digest=digest_of_data(path),
        doubt=labelled.contradictions(events, str(path)),
    )


def digest_of_data(path: Path) -> str:
    """Return the SHA-256 over the events of a file, or of a folder of event types."""
    return corpus_digest(path) if path.is_dir() else digest_of(path)


def _of_event_types(
    data: Data, root: Path, task: Task, seed: int, *, foreign: list[str], foreign_test: list[str]
) -> Examples:
    path = root / data.path
    types = read_event_types(path)
    strangers = sorted({kind.label for kind in types} - set(task.label_names))
    if strangers:
        raise InputError(f"{path}: labels {strangers} are none of task {task.name}'s")
    learnt, test = in_fold(types, "train"), in_fold(types, "test")

    def drawn(kinds: Sequence[EventType], number: int) -> HeldOut:
        examples = [example_of(line, task) for line in expand(kinds, copies=1, seed=number)]  # more say little new
        return HeldOut(examples, np.repeat(np.arange(len(kinds)), [len(kind.templates) for kind in kinds]))

    # How often a label occurs in what somebody wrote says nothing of how often it occurs at a gateway.
    calibration = evenly(without_look_alikes(in_fold(types, "calibration"), [*learnt, *test]))
    held_out = {
        "calibration": drawn(calibration, _CALIBRATION_SEED),
        "test": drawn(evenly(without_look_alikes(test, learnt)), _TEST_SEED),
    }
    empty = ["train"] * (not learnt) + [name for name, fold in held_out.items() if not fold.examples]
    if empty:
        raise InputError(f"{path}: {len(types)} event types, and none for {' and '.join(empty)}")
    labelled.check_proportions([kind.label for kind in learnt], task, data.fewest_per_label, str(path), of=len(types))
    quiet = of_other_vendors(_plain_operation(root / data.quiet), learnt, types) if data.quiet else []
    plain = drawn(without_look_alikes(quiet, learnt), _QUIET_SEED) if data.quiet else None
    if plain is not None and not plain.examples:
        raise InputError(f"{root / data.quiet}: no event types of plain operation that are not learnt from")
    return Examples(
        draw=lambda number: draw(learnt, task, seed=seed, number=number),
        calibration=held_out["calibration"],
        test=held_out["test"],
        quiet=plain,
        foreign=foreign,
        foreign_test=foreign_test,
        digest=digest_of_data(path),
        types=learnt,
    )


def _plain_operation(folder: Path) -> list[EventType]:
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder of event types of plain operation")
    return read_event_types(folder)


def _by_group(events: Sequence[labelled.Labelled], task: Task) -> HeldOut:
    """Return examples of which those of one group, or of one text, are one witness."""
    _, witnesses = np.unique([event.group for event in events], return_inverse=True)
    return HeldOut([_example(event, task) for event in events], witnesses.astype(np.int64))


def _example(event: labelled.Labelled, task: Task) -> Example:
    fields = event.fields if event.label in task.fields_for else {}
    # A gateway splits the header off before the model reads; so does what the model learns from.
    return Example(body_of(event.text), event.label, event.group, fields)


def _foreign(path: Path, without: Sequence[str]) -> tuple[list[str], list[str]]:
    """Read texts that are not the task's and part them by kind, so that what is measured on is of another kind."""
    try:
        rows = [msgspec.json.decode(line, type=_Foreign) for line in content_of(path).splitlines() if line.strip()]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: no JSON lines with `kind` and `text`: {error}") from error
    pairs = [(row.kind, row.text) for row in rows]
    if strangers := sorted(set(without) - {kind for kind, _ in pairs}):
        raise ConfigError(f"{path}: `data.foreign_without` names kinds {strangers} that no text there is of")
    pairs = [(kind, text) for kind, text in pairs if kind not in without]
    kinds = sorted(Counter(kind for kind, _ in pairs))
    Random(len(kinds)).shuffle(kinds)  # noqa: S311 - wanted: the same every time
    measured = set(kinds[: round(_FOREIGN_TEST * len(kinds))])
    return [text for kind, text in pairs if kind not in measured], [text for kind, text in pairs if kind in measured]
