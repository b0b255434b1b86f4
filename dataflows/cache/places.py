"""Where values of fields stand in a template: they are cut from each new event, and never remembered. Pure."""

from bisect import bisect_right
from collections.abc import Sequence

from msgspec import Struct

from models.masking import Span

_MOST_PLACES = 16  # of one value: a letter may stand in a thousand


class Place(Struct, frozen=True, array_like=True, gc=False):
    """A stretch of a template, by its ends: how many masks end before each, and how many characters later it is.

    Masks differ in length from event to event, and what stands between them does not.
    """

    begin: tuple[int, int]
    end: tuple[int, int]

    def cut(self, text: str, masks: Sequence[Span]) -> str:
        """Return what stands there in an event of the template."""
        return text[_position(self.begin, masks) : _position(self.end, masks)]


def places_of(value: str, text: str, masks: Sequence[Span]) -> tuple[Place, ...]:
    """Return every place where `value` stands in `text`; none begins or ends within a mask.

    There is none, either, where there are too many to tell which one a model meant.
    """
    ends = [end for _, end in masks]
    found: list[Place] = []
    at = text.find(value) if value else -1
    while at >= 0:
        begin, end = _end_of(at, masks, ends), _end_of(at + len(value), masks, ends)
        if begin is not None and end is not None:
            found.append(Place(begin, end))
            if len(found) > _MOST_PLACES:
                return ()
        at = text.find(value, at + 1)
    return tuple(found)


def _end_of(position: int, masks: Sequence[Span], ends: Sequence[int]) -> tuple[int, int] | None:
    """Return a position in the text as one in the template; None where it is within a mask."""
    before = bisect_right(ends, position)
    if before < len(masks) and masks[before][0] < position:
        return None
    return before, position - (ends[before - 1] if before else 0)


def _position(end: tuple[int, int], masks: Sequence[Span]) -> int:
    before, further = end
    return (masks[before - 1][1] if before else 0) + further
