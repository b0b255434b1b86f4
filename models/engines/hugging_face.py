"""Tokens as Hugging Face's tokenisers write them, and the bytes that they stand for.

A byte-level vocabulary writes each byte as a printable character; SentencePiece writes a space as U+2581, and a byte
that it has no token for as `<0x0A>`. A token that was added is written as it is.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final, Protocol

from models.contracts.errors import UntrustedError

_PRINTABLE: Final = (*range(33, 127), *range(161, 173), *range(174, 256))
_OTHERS: Final = tuple(byte for byte in range(256) if byte not in _PRINTABLE)
_BYTES: Final = {chr(byte): byte for byte in _PRINTABLE} | {chr(256 + at): byte for at, byte in enumerate(_OTHERS)}
_SPACE: Final = chr(256 + _OTHERS.index(32))
_BYTE_TOKEN: Final = re.compile(r"<0x([0-9A-F]{2})>")


class Tokenise(Protocol):
    """A tokeniser's one call."""

    def __call__(self, text: str, *, add_special: bool, parse_special: bool) -> tuple[list[int], list[str]]:
        """Return the numbers of a text's tokens, and how they are written; who cannot leave marks alone need not."""


class HuggingFaceTokeniser:
    """A `RawTokeniser` of what a tokeniser answers; it learns how tokens are written as it meets them."""

    def __init__(self, tokenise: Tokenise, added: Mapping[int, str], start: str, end: str) -> None:
        """Find out what kind it is; `added` are the tokens besides the vocabulary, control tokens among them."""
        self._tokenise = tokenise
        self._added = dict(added)
        self._written: dict[int, str] = dict(added)
        self.marks: Iterable[int] = tuple(added)
        _, written = self._tokenise(" a", add_special=False, parse_special=False)
        self._by_bytes = any(_SPACE in token for token in written)
        self.is_sentence_piece = not self._by_bytes
        numbers = {text: number for number, text in added.items()}
        self.start: int | None = numbers.get(start)
        self.end: int | None = numbers.get(end)
        self.adds_start = self.start is not None and self.tokens(b"a", add_special=True)[0] == self.start

    def tokens(self, text: bytes, *, parse_special: bool = False, add_special: bool = False) -> list[int]:
        numbers, written = self._tokenise(
            text.decode("utf-8", "replace"), add_special=add_special, parse_special=parse_special
        )
        self._written.update(zip(numbers, written, strict=True))
        return numbers

    def piece(self, token: int, *, special: bool = False) -> bytes:  # noqa: ARG002 # an added token is its own text
        written = self.spelling(token)
        if token in self._added:
            return written.encode()
        if self._by_bytes:
            if not _BYTES.keys() >= set(written):
                raise UntrustedError(
                    f"token {token} is written {written!r}, which a byte-level vocabulary does not have"
                )
            return bytes(_BYTES[letter] for letter in written)
        byte = _BYTE_TOKEN.fullmatch(written)
        return bytes([int(byte[1], 16)]) if byte else written.replace("\u2581", " ").encode()

    def spelling(self, token: int) -> str:
        return self._written[token]

    def is_control(self, token: int) -> bool:  # noqa: ARG002 # nobody says which of the added ones are
        return False

    def is_user_defined(self, token: int) -> bool:
        return token in self._added

    def is_byte(self, token: int) -> bool:
        return _BYTE_TOKEN.fullmatch(self.spelling(token)) is not None

    def is_unknown(self, token: int) -> bool:  # noqa: ARG002 # a decoder's vocabulary spells everything
        return False
