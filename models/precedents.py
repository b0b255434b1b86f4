"""What a model wrote for the last event of each form: a guess at what it writes for the next one.

Events that differ in their numbers alone have one form, and a value of one is likely what stands there in the other.
"""

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from threading import Lock

from msgspec import Struct

Values = Mapping[str, tuple[str, ...]]  # by field

_DIGITS = "0123456789"
_NUMBER = re.compile(r"([0-9]+)")
_MOST_FORMS = 512
_MOST_CHARACTERS = 512  # a longer event is seldom like another


class _Span(Struct, frozen=True):
    """Where a value stands in an event: from one piece and an offset in it to another."""

    begin: tuple[int, int]
    end: tuple[int, int]


_Precedent = dict[str, list[_Span | str]]  # a value that does not stand in its event is the same in all of them


class Precedents:
    """Remembers the forms that came last; safe to be called from several threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._by_form: dict[str, _Precedent] = {}

    def likely(self, body: str) -> Values | None:
        """Return the values that an event of this form had, as they stand in this one; none if none is remembered."""
        if len(body) > _MOST_CHARACTERS:
            return None
        pieces = _NUMBER.split(body)
        with self._lock:
            precedent = self._by_form.pop(form := _form(pieces), None)
            if precedent is None:
                return None
            self._by_form[form] = precedent  # the last to be forgotten
        starts = _starts(pieces)
        return {name: tuple(_read(value, body, starts) for value in values) for name, values in precedent.items()}

    def remember(self, body: str, values: Values) -> None:
        """Make this the precedent of its form."""
        if len(body) > _MOST_CHARACTERS:
            return
        pieces = _NUMBER.split(body)
        starts = _starts(pieces)
        precedent = {name: [_located(value, body, starts) for value in found] for name, found in values.items()}
        with self._lock:
            self._by_form.pop(form := _form(pieces), None)
            self._by_form[form] = precedent
            if len(self._by_form) > _MOST_FORMS:
                del self._by_form[next(iter(self._by_form))]


def _form(pieces: Sequence[str]) -> str:
    return "0".join(pieces[::2])


def _starts(pieces: Sequence[str]) -> list[int]:
    """Return where each piece starts, and where the last ends."""
    return list(accumulate(map(len, pieces), initial=0))


def _located(value: str, body: str, starts: Sequence[int]) -> _Span | str:
    at = body.find(value)
    while at >= 0:
        end = at + len(value)
        # Not a part of a number: that has another length elsewhere.
        if not _cuts_number(body, at) and not _cuts_number(body, end):
            return _Span(_place(at, starts), _place(end, starts))
        at = body.find(value, at + 1)
    return value


def _cuts_number(body: str, at: int) -> bool:
    return 0 < at < len(body) and body[at - 1] in _DIGITS and body[at] in _DIGITS


def _place(at: int, starts: Sequence[int]) -> tuple[int, int]:
    piece = bisect_right(starts, at) - 1
    return piece, at - starts[piece]


def _read(value: _Span | str, body: str, starts: Sequence[int]) -> str:
    if isinstance(value, str):
        return value
    (begin, begin_offset), (end, end_offset) = value.begin, value.end
    return body[starts[begin] + begin_offset : starts[end] + end_offset]
