"""The compiled field program: which tokens may come next while a model writes fields. Pure.

Literals are forced. A `choice` walks the tree of its choices' tokens. A `copied` value walks the event itself: the next
token is one whose bytes go on with some place in the event where the value so far stands, so nothing that the event
does not contain can be written. Places and pieces are looked up, never searched for in the vocabulary.

Where there is a choice `guess` says what the model will most likely take, so that a decoder can decode ahead and only
check: what it wrote for an event of the same form, or else that a field is absent, as most fields of most events are,
and that a value which began with the first bytes of an address goes on to its end.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Protocol, Self

from msgspec import Struct

from models.contracts.task import Field, Task
from models.fields import ABSENT, END, SEPARATOR, VALUE_MAX_BYTES, field_literal, inside_words, occurs
from models.precedents import Values

Encode = Callable[[str], list[int]]
_HEAD_BYTES = 3
_PIECE_MAX_BYTES = 48  # longer pieces are runs of one character
_NOT_IN_VALUES = re.compile(rb"[;\r\n]")
_LIKELY = re.compile(rb"""[^\s"'<>()\[\]{},;|]+""")
_UNLIKELY_ENDS = b".:!?"
_SPACES = b" \t\v\f\x00"

Tree = dict[int, "Tree"]
_SPELLINGS = 1024  # that are remembered: names and addresses come again
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
        self._spelled = lru_cache(_SPELLINGS)(encode)
        self.token_of_piece = token_of_piece
        self.pieces = pieces
        self.longest = _longest(token_of_piece)
        self.literals = [encode(field_literal(field)) for field in task.fields]
        self.separator = encode(SEPARATOR)[0]
        self.absent = self.spelling(ABSENT)
        # What ends a field is what the next line begins with.
        self.ends = [literal[0] for literal in self.literals[1:]] + [encode(END)[0]]
        self.trees = [self._tree(field) if field.kind == "choice" else {} for field in task.fields]

    def begin(self, body: str, precedent: Values | None = None) -> "Transcript":
        """Return the transcript of an event's fields, nothing of it written, and likely as in `precedent`."""
        return Transcript(self, Haystack(body, self), precedent)

    def spelling(self, value: str) -> Sequence[int]:
        """Return the tokens of a value."""
        return self._spelled(f" {value}")

    def _tree(self, field: Field) -> Tree:
        tree: Tree = {}
        for choice in (*field.choices, ABSENT):
            node = tree
            for token in self.spelling(choice):
                node = node.setdefault(token, {})
            node[_LEAF] = {}
        return tree


class Transcript:
    """The lines of fields behind one label, token by token; a `copy` goes its own way."""

    def __init__(self, program: FieldProgram, haystack: "Haystack", precedent: Values | None = None) -> None:
        self._program = program
        self._haystack = haystack
        self._precedent = precedent
        self._field = 0
        self._forced: Sequence[int] = program.literals[0] if program.fields else ()
        self._written: tuple[tuple[str, ...], ...] = ((),)
        self._value = self._begin_value() if program.fields else None

    def copy(self) -> Self:
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)  # all of it immutable, or never changed
        return other

    @property
    def done(self) -> bool:
        return self._field == len(self._program.fields)

    @property
    def has_precedent(self) -> bool:
        """Whether a guess is worth more than that the next field is absent."""
        return self._precedent is not None

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
        return self._likely_end() if token is None and self._may_end else token

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
        program, number = self._program, len(self._written[self._field])
        value = self._likely_value(number)
        likely = program.spelling(value) if value else program.absent if number == 0 else ()
        if program.fields[self._field].kind == "choice":
            return _Chosen(program, program.trees[self._field], likely)
        return _Copied(self._haystack, likely, first=number == 0)

    def _likely_value(self, number: int) -> str | None:
        values = (self._precedent or {}).get(self._program.fields[self._field].name, ())
        return values[number] if number < len(values) else None

    def _likely_end(self) -> int:
        another = self._likely_value(len(self._written[self._field]) + 1)
        return self._program.separator if another and self._may_go_on() else self._program.ends[self._field]

    def _may_go_on(self) -> bool:
        written = len(self._written[self._field]) + 1
        return written < self._program.fields[self._field].max_values and self._running.text != ABSENT

    def _finish_value(self) -> None:
        *before, written = self._written
        value = self._running.text if self._running.may_end else _UNFINISHED
        self._written = (*before, (*written, value))


class _Chosen:
    """One of a field's choices."""

    def __init__(self, program: FieldProgram, tree: Tree, likely: Sequence[int], written: tuple[int, ...] = ()) -> None:
        self._program, self._tree, self._likely, self._written = program, tree, likely, written

    def allowed(self) -> Sequence[int]:
        return [token for token in self._tree if token != _LEAF]

    def guess(self) -> int | None:
        if len(self._tree) == 1 and not self.may_end:
            return next(iter(self._tree))
        token = _next_of(self._likely, self._written)
        return token if token in self._tree else None

    def advanced(self, token: int) -> "_Chosen":
        return _Chosen(self._program, self._tree[token], self._likely, (*self._written, token))

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
        self._program = program
        self._inside = inside_words(self.bytes)
        self._going_on: dict[tuple[int, int, bytes], list[tuple[int, int]]] = {}

    def holds(self, value: str, field: Field) -> bool:
        return value in field.choices if field.kind == "choice" else occurs(value, self.body)

    def may_end(self, place: Place) -> bool:
        return place.start < place.at and not self._inside[place.at] and self.bytes[place.at - 1] not in _SPACES

    def starts(self, *, first: bool) -> dict[int, list[Place]]:
        """Return the tokens that a value may start with, and where each may stand; only a first value may be absent."""
        return self._starts_or_absent if first else self._later_starts

    @cached_property
    def _later_starts(self) -> dict[int, list[Place]]:
        return self._begun_at(range(self.absent_at))

    @cached_property
    def _starts_or_absent(self) -> dict[int, list[Place]]:
        absent = self._begun_at(range(self.absent_at, self.absent_at + 1))
        both = self._later_starts | absent
        return both | {token: self._later_starts[token] + absent[token] for token in absent.keys() & self._later_starts}

    def _begun_at(self, begins: Iterable[int]) -> dict[int, list[Place]]:
        places = (Place(at, at, self._limit(at)) for at in begins if self._may_start(at))
        return _by_token(
            (place, self.going_on(place.at, place.limit, b" ")) for place in places if place.limit > place.start
        )

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

    def sure_bytes(self, places: Sequence[Place]) -> int:
        """Return for how many bytes a value that may stand at any of these places goes on, whichever it is."""
        first, *others = (self.bytes[place.at : self._inside.find(0, place.at + 1)] for place in places)
        return len(first) if all(other == first for other in others) else 0

    def likely_tokens(self, place: Place) -> Sequence[int]:
        """Return the tokens of the whole value that most likely starts here."""
        likely = _LIKELY.match(self.bytes, place.start, place.limit)
        text = likely[0].rstrip(_UNLIKELY_ENDS) if likely else b""
        return self._program.spelling(text.decode("utf-8", "replace")) if text else ()

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
        likely: Sequence[int],
        *,
        first: bool,
        places: Sequence[Place] | None = None,  # none: nothing is written yet, not even the space
        written: tuple[int, ...] = (),
    ) -> None:
        self._haystack, self._first = haystack, first
        self._places, self._written, self._likely = places, written, likely
        self.may_end = any(haystack.may_end(place) for place in places or ())

    def allowed(self) -> Sequence[int]:
        return list(self._successors) if self._forced is None else [self._forced]

    def guess(self) -> int | None:
        if self._forced is not None:
            return self._forced
        # Where the vocabulary cannot spell the event, that may be a token which does not go on from here.
        token = _next_of(self._spelling, self._written)
        return token if token in self._successors else None

    def advanced(self, token: int) -> "_Copied":
        return _Copied(
            self._haystack,
            self._spelling,
            first=self._first,
            places=self._successors[token],
            written=(*self._written, token),
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
    def _spelling(self) -> Sequence[int]:
        """The tokens of what this value most likely is."""
        if self._places and not _begins(self._likely, self._written):
            return self._haystack.likely_tokens(self._places[0])
        return self._likely

    @cached_property
    def _forced(self) -> int | None:
        """The next token on the way to a word's end that all places share: how to spell it is no question."""
        if not self._places or self.may_end:
            return None
        last = self._places[0].at + self._haystack.sure_bytes(self._places)
        # The places behind a token keep the order of those before it.
        inside = [token for token, places in self._successors.items() if places[0].at <= last]
        likely = _next_of(self._spelling, self._written)
        return likely if likely in inside else inside[-1] if inside else None

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
