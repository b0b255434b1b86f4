"""Labelled events in JSON lines: read strictly, parted by group, near repeats of what is learnt kept out."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from hashlib import sha256
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from models.contracts.errors import InputError
from models.contracts.task import Task
from models.fields import occurs
from quantize.events import body_of, content_of

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
    events, faults = [], list[str]()
    for number, line in enumerate(content_of(path).splitlines(), start=1):
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


def contradictions(events: Iterable[Labelled], where: str) -> str:
    """Return a sentence about texts that have more than one label; nothing, where none has."""
    labels: dict[str, set[str]] = {}
    for event in events:
        labels.setdefault(event.text, set()).add(event.label)
    torn = [text for text, given in labels.items() if len(given) > 1]
    if not torn:
        return ""
    first, given = torn[0][:60], _few(sorted(labels[torn[0]]))
    return f"{where}: {len(torn)} of {len(labels)} texts have more than one label; the first, {first!r}, has {given}"


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
            f"{where}: nothing is left for {' and '.join(empty)} of {len(events)} events in {groups} "
            f"group{'s' if groups > 1 else ''}"
        )
    return folds


def check_proportions(learnt: Sequence[str], task: Task, fewest: int, where: str, *, of: int) -> None:
    """Check that every label can be learnt, by the labels of what is learnt from `of` so many.

    Raises:
        InputError: labels of which there are too few, with their numbers.
    """
    counts = Counter(learnt)
    few = {name: counts[name] for name in task.label_names if counts[name] < fewest}
    if few:
        shown = ", ".join(f"`{name}` {count}" for name, count in list(few.items())[:8])
        raise InputError(
            f"{where}: too few events to learn from: {shown}{' and others' if len(few) > 8 else ''}; at least {fewest} "
            f"each wanted (`data.fewest_per_label`), and {len(learnt)} of {of} are learnt from"
        )


class _Phrases:
    """Texts by the phrases in them, to find near repeats without comparing all with all.

    Two texts that are alike share more than `_ALIKE` of the phrases of either. So the first that they share, in one
    order for all texts, is among the first 1 - `_ALIKE` of each, and no others are looked up (prefix filtering: Bayardo
    et al., "Scaling Up All Pairs Similarity Search", 2007). The rarest come first, for few texts hold them.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._whole = {phrases_of(text) for text in texts}
        self._held = Counter(chain.from_iterable(self._whole))
        self._by_phrase: dict[str, list[frozenset[str]]] = {}
        for phrases in self._whole:
            for phrase in self._rarest(phrases):
                self._by_phrase.setdefault(phrase, []).append(phrases)

    def nearly_hold(self, text: str) -> bool:
        mine = phrases_of(text)
        if mine in self._whole:
            return True
        near = set(chain.from_iterable(self._by_phrase.get(phrase, ()) for phrase in self._rarest(mine)))
        return any(len(mine & other) > _ALIKE * len(mine | other) for other in near)

    def _rarest(self, phrases: frozenset[str]) -> list[str]:
        ranked = sorted(phrases, key=lambda phrase: (self._held[phrase], phrase))
        return ranked[: len(ranked) - int(_ALIKE * len(ranked))]


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
        found = f"`{group_by}` is no string" if group_by in row else f"no `{group_by}`"
        raise ValueError(f"{found}, by which events are parted")
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
