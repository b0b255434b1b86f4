"""What the warehouse's files are called, and which of them count. Pure.

    verdicts/day=2026-01-31/part-<what is in it>.parquet         one delivery's records of a day
    verdicts/day=2026-01-31/settled-<what went into it>.parquet  several files of a day as one, without repeats

A settled file names in itself the files whose rows it holds. So one write both brings it in and takes them out, and
there is no moment at which a reader finds a row in two files or in none. They are deleted later, when nobody who saw
them in a listing can still be about to read them.
"""

import re
from collections.abc import Callable, Collection, Iterable
from datetime import date
from hashlib import sha256
from itertools import groupby

from msgspec import Struct

Names = Callable[[str], Collection[str]]
"""Reads from a settled file the names of the files that it replaces."""

_NAME = re.compile(r"(?P<folder>[a-z]+/day=(?P<day>\d{4}-\d{2}-\d{2}))/(?P<kind>part|settled)-[0-9a-f]{32}\.parquet")


class Layout(Struct, frozen=True):
    """The files of a table that count, by what a reader has to do with them."""

    settled: tuple[str, ...] = ()  # alone in their days: without repeats, and each row knows whether it stands
    begun: tuple[str, ...] = ()  # the same, but fresh ones may supersede their rows, or repeat them
    fresh: tuple[str, ...] = ()


def folder(table: str, day: str) -> str:
    return f"{table}/day={day}"


def part_name(table: str, day: str, digest: str) -> str:
    """Return what the same records are always called, so that a repeat of a delivery overwrites itself."""
    return f"{folder(table, day)}/part-{digest}.parquet"


def settled_name(table: str, day: str, replaced: Iterable[str]) -> str:
    """Return what the file is called that replaces these.

    It is none of their names, nor that of any file before them: a name is made of the names that went into it.
    """
    return f"{folder(table, day)}/settled-{sha256(' '.join(sorted(replaced)).encode()).hexdigest()[:32]}.parquet"


def is_settled(name: str) -> bool:
    found = _NAME.fullmatch(name)
    return found is not None and found["kind"] == "settled"


def day_of(name: str) -> str | None:
    """Return a file's day; None where the file is none of ours."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    try:
        date.fromisoformat(found["day"])
    except ValueError:
        return None
    return found["day"]


def counting(names: Iterable[str], replaced_by: Names) -> list[str]:
    """Return which files of one day hold the rows of all, each once."""
    ours = [name for name in names if day_of(name)]
    if len(ours) < 2:  # then there is nothing to ask
        return ours
    replaced = {name for settled in filter(is_settled, ours) for name in replaced_by(settled)}
    return [name for name in ours if name not in replaced]


def laid_out(names: Iterable[str], replaced_by: Names) -> Layout:
    """Return which files of a table count, and as what."""
    settled: list[str] = []
    begun: list[str] = []
    fresh: list[str] = []
    ours = sorted((day, name) for name in names if (day := day_of(name)))
    for _, each in groupby(ours, key=lambda found: found[0]):
        found = counting((name for _, name in each), replaced_by)
        # Two that are settled are the work of two who did it at once; the rows of one count as fresh.
        first = next(filter(is_settled, found), None)
        others = [name for name in found if name != first]
        if first is not None:
            (begun if others else settled).append(first)
        fresh += others
    return Layout(tuple(settled), tuple(begun), tuple(fresh))
