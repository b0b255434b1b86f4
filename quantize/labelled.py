"""Labelled events in JSON lines: read strictly, parted by group, near repeats of what is learnt kept out."""

import re
from collections import Counter
from collections.abc import Sequence
from difflib import get_close_matches
from hashlib import sha256
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from models.contracts.errors import ConfigError, InputError
from models.contracts.task import Task
from models.fields import occurs
from quantize.events import body_of

FOLDS = ("train", "calibration", "test")
_MOST_FAULTS = 5
_ALIKE = 0.6  # of the phrases that either text has


class Labelled(Struct, frozen=True):
    """One labelled event."""

    text: str
    label: str
    group: str  # what is never parted: a product, a source; or the text's own digest
    fields: dict[str, tuple[str, ...]] = {}
    fold: str = ""  # where the file itself says so


def read_labelled(path: Path, task: Task, group_by: str = "") -> list[Labelled]:
    """Read `text`, `label`, perhaps `fields`, perhaps `fold`, and the key `group_by`.

    Raises:
        ConfigError: the file cannot be read.
        InputError: lines that are none, labels that are not the task's, or fewer than two labels; the first few are
            named with their lines.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error
    events, faults = [], list[str]()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            events.append(_event(msgspec.json.decode(line), task, group_by))
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            faults.append(f"line {number}: {error}")
    if faults:
        more = f"; and {len(faults) - _MOST_FAULTS} more" if len(faults) > _MOST_FAULTS else ""
        raise InputError(f"{path}: {'; '.join(faults[:_MOST_FAULTS])}{more}")
    found = sorted({event.label for event in events})
    if len(found) < 2:
        raise InputError(
            f"{path}: {len(events)} events with {f'the one label {found[0]!r}' if found else 'no label'}; "
            f"nothing can be learnt or measured from fewer than two of {_few(task.label_names)}"
        )
    return events


def part(events: Sequence[Labelled], *, test: float, calibration: float, where: str) -> dict[str, list[Labelled]]:
    """Return the events by fold; a group is in one fold only, and so are near repeats.

    A file that names folds itself is taken by its word, if no group is in two of them.

    Raises:
        InputError: a group is in two folds, or a fold is empty.
    """
    said = {event.fold for event in events}
    if said != {""}:
        _check_folds(events, where)
        folds = {fold: [event for event in events if event.fold == fold] for fold in FOLDS}
    else:
        folds = {fold: [] for fold in FOLDS}
        for event in events:
            folds[_fold_of(event.group, test, calibration)].append(event)
    for fold, others in (("test", "train"), ("calibration", "train"), ("calibration", "test")):
        phrases = _Phrases(body_of(event.text) for event in folds[others])
        folds[fold] = [event for event in folds[fold] if not phrases.nearly_hold(body_of(event.text))]
    empty = [fold for fold, kept in folds.items() if not kept]
    if empty:
        groups = len({event.group for event in events})
        raise InputError(
            f"{where}: nothing is left for {' and '.join(empty)} of {len(events)} events in {groups} groups"
        )
    return folds


def check_proportions(learnt: Sequence[str], task: Task, fewest: int, where: str) -> None:
    """Check that every label can be learnt, by the labels of what is learnt from.

    Raises:
        InputError: labels of which there are too few, with their numbers.
    """
    counts = Counter(learnt)
    few = {name: counts[name] for name in task.label_names if counts[name] < fewest}
    if few:
        shown = ", ".join(f"`{name}` {count}" for name, count in list(few.items())[:8])
        raise InputError(
            f"{where}: too few events to learn from: {shown}{' and others' if len(few) > 8 else ''}; at least {fewest} "
            "each wanted (`data.fewest_per_label`)"
        )


class _Phrases:
    """Texts by the phrases in them, to find near repeats without comparing all with all."""

    def __init__(self, texts: Any) -> None:
        self._known = [phrases_of(text) for text in texts]
        self._whole = set(self._known)
        self._by_phrase: dict[str, list[int]] = {}
        for index, phrases in enumerate(self._known):
            for phrase in phrases:
                self._by_phrase.setdefault(phrase, []).append(index)

    def nearly_hold(self, text: str) -> bool:
        mine = phrases_of(text)
        if mine in self._whole:
            return True
        holders = {phrase: self._by_phrase[phrase] for phrase in mine if phrase in self._by_phrase}
        seldom = [texts for texts in holders.values() if len(texts) <= _COMMON]
        near = set(chain.from_iterable(seldom or holders.values()))  # of a text of common phrases alone, all of them
        return any(len(mine & self._known[index]) > _ALIKE * len(mine | self._known[index]) for index in near)


_COMMON = 400  # a phrase in more texts than this says little of any


def phrases_of(text: str) -> frozenset[str]:
    """Return every two words in a row, figures left out; a text of one word is that word."""
    words = re.findall(r"[^\W\d_]+", text.casefold())
    return frozenset(f"{first} {second}" for first, second in pairwise(words)) or frozenset(words)


def _event(row: Any, task: Task, group_by: str) -> Labelled:
    if not isinstance(row, dict) or not isinstance(row.get("text"), str) or not row["text"].strip():
        raise ValueError("no `text`")
    label = row.get("label")
    if label is None or label == "":
        raise ValueError("no `label`")
    if label not in task.label_names:
        near = get_close_matches(str(label), task.label_names, n=1)
        hint = f", `{near[0]}` perhaps" if near else ""
        raise ValueError(f"label `{label}` is none of task {task.name}{hint}; it has {_few(task.label_names)}")
    if group_by and not isinstance(row.get(group_by), str):
        raise ValueError(f"no `{group_by}`, by which events are parted")
    text = row["text"]
    told = row.get("fields") or {}
    if not isinstance(told, dict) or not all(isinstance(values, str | list) for values in told.values()):
        raise ValueError("`fields` is no object of values or lists of values")
    fields = {
        name: tuple(value for value in ([values] if isinstance(values, str) else values) if isinstance(value, str))
        for name, values in told.items()
    }
    known = {field.name: field for field in task.fields}
    body = body_of(text)  # what a model reads, and may copy from
    kept = {
        name: tuple(
            value
            for value in values
            if (value in known[name].choices if known[name].kind == "choice" else occurs(value, body))
        )
        for name, values in fields.items()
        if name in known
    }
    fold = row.get("fold", "")
    if fold not in ("", *FOLDS):
        raise ValueError(f"fold `{fold}` is none of {_few(FOLDS)}")
    group = row[group_by] if group_by else " ".join(sorted(phrases_of(body)))
    return Labelled(text, label, group, {name: values for name, values in kept.items() if values}, fold)


def _check_folds(events: Sequence[Labelled], where: str) -> None:
    folds: dict[str, str] = {}
    for event in events:
        if not event.fold:
            raise InputError(f"{where}: some events name a fold and others do not; all or none wanted")
        if folds.setdefault(event.group, event.fold) != event.fold:
            raise InputError(
                f"{where}: group `{event.group[:60]}` is in {folds[event.group]} and in {event.fold}; "
                "what is learnt from cannot be measured on"
            )


def _fold_of(group: str, test: float, calibration: float) -> str:
    share = int.from_bytes(sha256(f"fold/{group}".encode()).digest()[:6]) / 2**48
    return "test" if share < test else "calibration" if share < test + calibration else "train"


def _few(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
