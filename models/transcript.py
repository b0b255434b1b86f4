"""The compiled field program: which tokens may come next while a model writes fields. Pure.

Literals are forced. A `choice` walks the tree of its choices' tokens. A `copied` value walks the event itself: the next
token is one whose bytes go on with some place in the event where the value so far stands, so nothing that the event
does not contain can be written. Places and pieces are looked up, never searched for in the vocabulary.

Where there is a choice `guess` says what the model will most likely take, so that a decoder can decode ahead and only
check: most fields of most events are absent, and a value that began with the first bytes of an address goes on to its
end. A guess depends on this event alone, never on those before it.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Protocol, Self

from msgspec import Struct

from models.contracts.task import Field, Task
from models.fields import ABSENT, END, SEPARATOR, VALUE_MAX_BYTES, field_literal, inside_words, occurs

Encode = Callable[[str], list[int]]
_HEAD_BYTES = 3
_PIECE_MAX_BYTES = 48  # longer pieces are runs of one character
_NOT_IN_VALUES = re.compile(rb"[;\r\n]")
_LIKELY = re.compile(rb"""[^\s"'<>()\[\]{},;|]+""")
_UNLIKELY_ENDS = b".:!?"
_SPACES = b" \t\v\f\x00"

Tree = dict[int, "Tree"]
_LEAF = -1  # no token has this number
_UNFINISHED = ""  # a value that could not be written to its end; no event holds it, so it is dropped and counted


class _Value(Protocol):
    """A value that is being written; it never changes, so copies of a transcript share it."""

    def allowed(self) -> Sequence[int]: ...
    def guess(self) -> int | None: ...
    def advanced(self, token: int) -> Self: ...
    @property
    def begun(self) -> bool: ...
    @property
    def may_end(self) -> bool: ...
    @property
    def text(self) -> str: ...


class FieldProgram:
    """A task's fields, compiled for one vocabulary."""

    def __init__(
        self, task: Task, encode: Encode, token_of_piece: Mapping[bytes, int], pieces: Sequence[bytes]
    ) -> None:
        self.fields = task.fields
        self.encode = encode
        self.token_of_piece = token_of_piece
        self.pieces = pieces
        self.longest = _longest(token_of_piece)
        self.literals = [encode(field_literal(field)) for field in task.fields]
        self.separator = encode(SEPARATOR)[0]
        self.absent = tuple(encode(f" {ABSENT}"))
        # What ends a field is what the next line begins with.
        self.ends = [literal[0] for literal in self.literals[1:]] + [encode(END)[0]]
        self.trees = [self._tree(field) if field.kind == "choice" else {} for field in task.fields]

    def begin(self, body: str) -> "Transcript":
        """Return the transcript of an event's fields, nothing of it written."""
        return Transcript(self, Haystack(body, self))

    def _tree(self, field: Field) -> Tree:
        tree: Tree = {}
        for choice in (*field.choices, ABSENT):
            node = tree
            for token in self.encode(f" {choice}"):
                node = node.setdefault(token, {})
            node[_LEAF] = {}
        return tree


class Transcript:
    """The lines of fields behind one label, token by token. `copy.copy` of one goes its own way."""

    def __init__(self, program: FieldProgram, haystack: "Haystack") -> None:
        self._program = program
        self._haystack = haystack
        self._field = 0
        self._forced: Sequence[int] = program.literals[0] if program.fields else ()
        self._written: tuple[tuple[str, ...], ...] = ((),)
        self._value = self._begin_value() if program.fields else None

    @property
    def done(self) -> bool:
        return self._field == len(self._program.fields)

    @property
    def at_value(self) -> bool:
        """Whether the next token begins a value."""
        return not self._forced and not self._running.begun

    def allowed(self) -> Sequence[int]:
        """Return the tokens of which the next is one; a single one needs no model."""
        if self._forced:
            return self._forced[:1]
        tokens = self._running.allowed()
        if not self._may_end:
            return tokens
        ends = [self._program.ends[self._field]]
        if self._may_go_on():
            ends.append(self._program.separator)
        return [*tokens, *ends]

    def guess(self) -> int | None:
        """Return the likely next token, if there is one."""
        if self._forced:
            return self._forced[0]
        token = self._running.guess()
        return self._program.ends[self._field] if token is None and self._may_end else token

    def advance(self, token: int) -> None:
        """Write a token that is allowed."""
        program = self._program
        if self._forced:
            self._forced = self._forced[1:]
        elif token == program.ends[self._field] and self._may_end:
            self._finish_value()
            self._field += 1
            self._written = (*self._written, ())
            if not self.done:
                self._forced = program.literals[self._field][1:]
                self._value = self._begin_value()
        elif token == program.separator and self._may_end:
            self._finish_value()
            self._value = self._begin_value()
        else:
            self._value = self._running.advanced(token)

    def values(self) -> tuple[dict[str, tuple[str, ...]], int]:
        """Return what was found, by field, and how many values were dropped as not in the event."""
        found: dict[str, tuple[str, ...]] = {}
        ungrounded = 0
        for field, written in zip(self._program.fields, self._written, strict=False):
            wanted = [value for value in dict.fromkeys(written) if value != ABSENT]
            kept = tuple(value for value in wanted if self._haystack.holds(value, field))
            ungrounded += len(wanted) - len(kept)
            if kept:
                found[field.name] = kept
        return found, ungrounded

    @property
    def _running(self) -> _Value:
        assert self._value is not None
        return self._value

    @property
    def _may_end(self) -> bool:
        """Whether the value may end here; it must where the vocabulary cannot spell what goes on from it."""
        return self._running.may_end or not self._running.allowed()

    def _begin_value(self) -> _Value:
        field = self._program.fields[self._field]
        if field.kind == "choice":
            return _Chosen(self._program, self._program.trees[self._field])
        return _Copied(self._haystack, first=not self._written[self._field])

    def _may_go_on(self) -> bool:
        written = len(self._written[self._field]) + 1
        return written < self._program.fields[self._field].max_values and self._running.text != ABSENT

    def _finish_value(self) -> None:
        *before, written = self._written
        value = self._running.text if self._running.may_end else _UNFINISHED
        self._written = (*before, (*written, value))


class _Chosen:
    """One of a field's choices."""

    def __init__(self, program: FieldProgram, tree: Tree, written: tuple[int, ...] = ()) -> None:
        self._program, self._tree, self._written = program, tree, written

    def allowed(self) -> Sequence[int]:
        return [token for token in self._tree if token != _LEAF]

    def guess(self) -> int | None:
        if len(self._tree) == 1 and not self.may_end:
            return next(iter(self._tree))
        return _next_of(self._program.absent, self._written)

    def advanced(self, token: int) -> "_Chosen":
        return _Chosen(self._program, self._tree[token], (*self._written, token))

    @property
    def begun(self) -> bool:
        return bool(self._written)

    @property
    def may_end(self) -> bool:
        return _LEAF in self._tree

    @property
    def text(self) -> str:
        return b"".join(self._program.pieces[token] for token in self._written).decode("utf-8", "replace").strip()


class Place(Struct, frozen=True, gc=False):
    """Where a value stands in the event: from `start`, written up to `at`, at most to `limit`."""

    start: int
    at: int
    limit: int


class Haystack:
    """An event's bytes, and which tokens go on from each of them; `-` for a value that is absent lies behind them."""

    def __init__(self, body: str, program: FieldProgram) -> None:
        self.body = body
        self.bytes = body.encode("utf-8", "replace") + b"\n" + ABSENT.encode()
        self.absent_at = len(self.bytes) - 1
        self.absent = program.absent
        self._program = program
        self._inside = inside_words(self.bytes)
        self._going_on: dict[tuple[int, int, bytes], list[tuple[int, int]]] = {}
        self._starts: dict[bool, dict[int, list[Place]]] = {}

    def holds(self, value: str, field: Field) -> bool:
        return value in field.choices if field.kind == "choice" else occurs(value, self.body)

    def may_end(self, place: Place) -> bool:
        return place.start < place.at and not self._inside[place.at] and self.bytes[place.at - 1] not in _SPACES

    def starts(self, *, first: bool) -> dict[int, list[Place]]:
        """Return the tokens that a value may start with, and where each may stand; only a first value may be absent."""
        if first not in self._starts:
            begins = range(self.absent_at + 1 if first else self.absent_at)
            places = (Place(at, at, self._limit(at)) for at in begins if self._may_start(at))
            self._starts[first] = _by_token(
                (place, self.going_on(place.at, place.limit, b" ")) for place in places if place.limit > place.start
            )
        return self._starts[first]

    def going_on(self, at: int, limit: int, lead: bytes = b"") -> list[tuple[int, int]]:
        """Return the tokens that stand at a place, each with where it ends; `lead` is put in front of the place."""
        key = (at, limit, lead)
        if key not in self._going_on:
            token_of, text = self._program.token_of_piece, lead + self.bytes[at : min(limit, at + _PIECE_MAX_BYTES)]
            longest = self._program.longest.get(text[:_HEAD_BYTES], _HEAD_BYTES)
            # With a lead of its own token, the place is not moved.
            self._going_on[key] = [
                (token_of[text[:size]], at + size - len(lead))
                for size in range(1, min(longest, len(text)) + 1)
                if text[:size] in token_of
            ]
        return self._going_on[key]

    def likely_tokens(self, place: Place) -> list[int]:
        """Return the tokens of the whole value that most likely starts here."""
        likely = _LIKELY.match(self.bytes, place.start, place.limit)
        text = likely[0].rstrip(_UNLIKELY_ENDS) if likely else b""
        return self._program.encode(" " + text.decode("utf-8", "replace")) if text else []

    def _may_start(self, at: int) -> bool:
        return not self._inside[at] and self.bytes[at] not in _SPACES

    def _limit(self, start: int) -> int:
        """Return the last place where a value from here may end."""
        stop = _NOT_IN_VALUES.search(self.bytes, start)
        end = min(stop.start() if stop else len(self.bytes), start + VALUE_MAX_BYTES)
        while end > start and (self._inside[end] or self.bytes[end - 1] in _SPACES):
            end -= 1
        return end


class _Copied:
    """A value that stands in the event, as the places where it may be standing."""

    def __init__(
        self,
        haystack: Haystack,
        *,
        first: bool,
        places: Sequence[Place] | None = None,  # none: nothing is written yet, not even the space
        written: tuple[int, ...] = (),
        likely: Sequence[int] | None = None,
    ) -> None:
        self._haystack, self._first = haystack, first
        self._places, self._written, self._likely = places, written, likely
        self.may_end = any(haystack.may_end(place) for place in places or ())

    def allowed(self) -> Sequence[int]:
        return list(self._successors)

    def guess(self) -> int | None:
        token = self._expected()
        # Where the vocabulary cannot spell the event, that may be a token which does not go on from here.
        return token if token in self._successors else None

    def _expected(self) -> int | None:
        if self._first and _begins(self._haystack.absent, self._written):
            return _next_of(self._haystack.absent, self._written)
        if not self._places:
            return None
        if _begins(self._likely_tokens, self._written):
            return _next_of(self._likely_tokens, self._written)
        # Not spelled as expected: the longest piece, up to where the value may end.
        return None if self.may_end else next(reversed(self._successors), None)

    def advanced(self, token: int) -> "_Copied":
        likely = self._likely_tokens if self._places else None
        written = (*self._written, token)
        return _Copied(
            self._haystack, first=self._first, places=self._successors[token], written=written, likely=likely
        )

    @property
    def begun(self) -> bool:
        return bool(self._written)

    @property
    def text(self) -> str:
        if not self._places:
            return ""
        place = self._places[0]
        return self._haystack.bytes[place.start : place.at].decode("utf-8", "replace")

    @cached_property
    def _likely_tokens(self) -> Sequence[int]:
        return (
            self._haystack.likely_tokens(self._places[0])
            if self._likely is None and self._places
            else self._likely or ()
        )

    @cached_property
    def _successors(self) -> dict[int, list[Place]]:
        if self._places is None:
            return self._haystack.starts(first=self._first)
        return _by_token((place, self._haystack.going_on(place.at, place.limit)) for place in self._places)


def _by_token(steps: Iterable[tuple[Place, list[tuple[int, int]]]]) -> dict[int, list[Place]]:
    """Turn places, each with the tokens that stand there, into tokens, each with the places behind it."""
    found: dict[int, list[Place]] = {}
    for place, tokens in steps:
        for token, end in tokens:
            found.setdefault(token, []).append(Place(place.start, end, place.limit))
    return found


def _longest(pieces: Iterable[bytes]) -> dict[bytes, int]:
    """Return, for what the longer pieces begin with, how long they get: most places need few lookups."""
    longest: dict[bytes, int] = {}
    for piece in pieces:
        head = piece[:_HEAD_BYTES]
        if len(piece) > longest.get(head, _HEAD_BYTES):
            longest[head] = len(piece)
    return longest


def _begins(whole: Sequence[int], written: tuple[int, ...]) -> bool:
    return tuple(whole[: len(written)]) == written


def _next_of(whole: Sequence[int], written: tuple[int, ...]) -> int | None:
    """Return what follows in `whole` where it begins with what is written."""
    return whole[len(written)] if _begins(whole, written) and len(written) < len(whole) else None
