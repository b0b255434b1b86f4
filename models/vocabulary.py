"""Text to tokens and back, such that an event stays data whatever it says. Pure.

llama.cpp finds user-defined tokens (`[PAD151646]`) even in plain text, and a SentencePiece vocabulary may merge `<s>`
into its control token. Where that happens the text is cut inside the token, and its parts are encoded apart.
"""

import sys
from collections.abc import Iterable
from functools import cached_property
from itertools import accumulate
from typing import Protocol

_UNKNOWN = ("[UNK]", "<unk>")
_CUTS = 4  # rounds of cutting; then character by character


class RawTokeniser(Protocol):
    """What a runtime's tokeniser does, call by call."""

    marks: Iterable[int]  # the tokens that are no plain text, and perhaps others
    start: int | None
    end: int | None
    adds_start: bool
    is_sentence_piece: bool

    def tokens(self, text: bytes, *, parse_special: bool = False, add_special: bool = False) -> list[int]: ...
    def piece(self, token: int, *, special: bool = False) -> bytes: ...
    def spelling(self, token: int) -> str: ...
    def is_control(self, token: int) -> bool: ...
    def is_user_defined(self, token: int) -> bool: ...
    def is_byte(self, token: int) -> bool: ...
    def is_unknown(self, token: int) -> bool: ...


class ListedTokeniser(RawTokeniser, Protocol):
    """One whose tokens are all known: they are the numbers below `size`."""

    size: int


class TextEncoder:
    """Encodes what strangers wrote and what we wrote, each as it must be."""

    most_marks = sys.maxsize  # a text with more of them is encoded character by character

    def __init__(self, raw: RawTokeniser) -> None:
        self._raw = raw
        self._adds_space = raw.is_sentence_piece and raw.piece(raw.tokens(b"a")[0]).startswith(b" ")

    def encode(self, text: str) -> list[int]:
        """Return the tokens of exactly this text as plain text: no control token, no space in front.

        A lone surrogate is a question mark.
        """
        return self._plain(text.encode("utf-8", "replace"), _CUTS)

    def encode_prompt(self, text: str) -> list[int]:
        """Return the tokens of text that we wrote, control tokens among them, with what the model wants in front."""
        tokens = self._raw.tokens(text.encode(), parse_special=True)
        if not self._raw.adds_start or self._raw.start is None or tokens[:1] == [self._raw.start]:
            return tokens
        return [self._raw.start, *tokens]

    def encode_mark(self, text: str) -> list[int]:
        """Return the tokens of text that we wrote, control tokens among them, for the middle of a prompt."""
        if self._adds_space:
            return self._behind_guard(text.encode(), parse_special=True)
        return self._raw.tokens(text.encode(), parse_special=True)

    def encode_whole(self, text: str) -> list[int]:
        """Return the tokens of plain text between the marks that an encoder wants at both ends.

        What the vocabulary cannot spell stays, as its token for the unknown.
        """
        first, *inner, last = self._raw.tokens(text.encode("utf-8", "replace"), add_special=True)
        return [first, *(token for token in inner if token not in self._special or self._is_unknown(token)), last]

    @property
    def marks_both_ends(self) -> bool:
        """Whether it puts a mark in front of a whole text and one behind it."""
        return [len(self._raw.tokens(b"", add_special=marked)) for marked in (False, True)] == [0, 2]

    @property
    def start_text(self) -> str:
        """How the token that starts a text is written, for chat templates."""
        return "" if self._raw.start is None else self._raw.spelling(self._raw.start)

    @property
    def end_text(self) -> str:
        """How the token that ends a text is written, for chat templates."""
        return "" if self._raw.end is None else self._raw.spelling(self._raw.end)

    def pieces_of(self, tokens: Iterable[int]) -> dict[int, bytes]:
        """Return the bytes that each of these tokens stands for; nothing for control tokens."""
        return {token: b"" if token in self._special else self._raw.piece(token) for token in set(tokens)}

    @cached_property
    def _special(self) -> frozenset[int]:
        return frozenset(filter(self._is_special, self._raw.marks))

    def _is_unknown(self, token: int) -> bool:
        # Converters often say that it is a control token.
        return self._raw.is_unknown(token) or self._raw.spelling(token) in _UNKNOWN

    def _is_special(self, token: int) -> bool:
        if self._raw.is_control(token):
            return True
        # Some vocabularies define runs of spaces, or single letters, because their tokeniser would miss them.
        return self._raw.is_user_defined(token) and len(self._raw.piece(token).decode("utf-8", "replace").strip()) > 1

    def _plain(self, text: bytes, cuts: int) -> list[int]:
        tokens = self._exactly(text)
        if self._special.isdisjoint(tokens):
            return tokens
        ends = list(accumulate(len(self._raw.piece(token, special=True)) for token in tokens))
        found = sum(token in self._special for token in tokens)
        if not cuts or ends[-1] != len(text) or found > self.most_marks:
            return self._by_character(text)
        # Behind its first byte, each token that must not be is two texts.
        bounds = [
            end - len(self._raw.piece(token, special=True)) + 1
            for token, end in zip(tokens, ends, strict=True)
            if token in self._special
        ]
        parts = [text[begin:end] for begin, end in zip([0, *bounds], [*bounds, len(text)], strict=True)]
        return [token for part in parts if part for token in self._plain(part, cuts - 1)]

    def _by_character(self, text: bytes) -> list[int]:
        """Encode characters apart: what is left for a text that fights the tokeniser. Control tokens are dropped."""
        tokens = (token for character in text.decode("utf-8", "replace") for token in self._exactly(character.encode()))
        return [token for token in tokens if token not in self._special]

    def _exactly(self, text: bytes) -> list[int]:
        if not self._adds_space:
            return self._raw.tokens(text)
        return self._raw.tokens(text[1:]) if text.startswith(b" ") and text != b" " else self._behind_guard(text)

    def _behind_guard(self, text: bytes, *, parse_special: bool = False) -> list[int]:
        """Encode behind a line end, which joins no token, and take it and the added space off."""
        guard = self._raw.tokens(b"\n")
        return self._raw.tokens(b"\n" + text, parse_special=parse_special)[len(guard) :]


class Vocabulary(TextEncoder):
    """All tokens of a model besides, by what they stand for."""

    def __init__(self, raw: ListedTokeniser) -> None:
        super().__init__(raw)
        self.size = raw.size

    @cached_property
    def pieces(self) -> list[bytes]:
        """The bytes that each token stands for; nothing for control tokens."""
        return [b"" if token in self._special else self._raw.piece(token) for token in range(self.size)]

    @cached_property
    def token_of_piece(self) -> dict[bytes, int]:
        """The one token for these bytes, as the tokeniser prefers them: defined, normal, a byte's stand-in."""
        found: dict[bytes, int] = {}
        for token in sorted(
            range(self.size), key=lambda token: (self._raw.is_byte(token), not self._raw.is_user_defined(token))
        ):
            if piece := self.pieces[token]:
                found.setdefault(piece, token)
        return found
