"""Tokens as Hugging Face's tokenisers write them are the bytes they stand for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.contracts.errors import UntrustedError
from models.engines.hugging_face import _BYTES, HuggingFaceTokeniser
from models.vocabulary import TextEncoder
from tests.fakes.engine_server import MARKS, tokenised

_WRITTEN = {byte: letter for letter, byte in _BYTES.items()}


def by_bytes(text: str, *, add_special: bool, parse_special: bool) -> tuple[list[int], list[str]]:  # noqa: ARG001
    tokens = [256, *tokenised(text)] if add_special else tokenised(text)
    return tokens, [MARKS.get(token) or _WRITTEN[token] for token in tokens]


def by_pieces(text: str, *, add_special: bool, parse_special: bool) -> tuple[list[int], list[str]]:  # noqa: ARG001
    """As SentencePiece writes: a space in front, spaces as marks, and bytes for what it has no token for."""
    written = [
        letter if letter.isascii() else f"<0x{byte:02X}>"
        for letter in f" {text}"
        for byte in (letter.encode() if not letter.isascii() else b"\0")
    ]
    return [ord(each[-1]) for each in written], [each.replace(" ", "\u2581") for each in written]


def tokeniser() -> HuggingFaceTokeniser:
    return HuggingFaceTokeniser(by_bytes, MARKS, "<|endoftext|>", "<|im_end|>")


def test_every_byte_is_written_as_a_letter_of_its_own() -> None:
    assert sorted(_BYTES.values()) == list(range(256))


@given(st.text(max_size=60))
def test_the_pieces_of_a_text_are_its_bytes(text: str) -> None:
    raw = tokeniser()

    assert b"".join(map(raw.piece, raw.tokens(text.encode("utf-8", "replace")))) == text.encode("utf-8", "replace")


@given(st.lists(st.sampled_from([*MARKS.values(), "<", "PAD", " ", "é", "root"]), max_size=6).map("".join))
def test_a_mark_in_an_event_is_the_text_it_looks_like(text: str) -> None:
    encoder = TextEncoder(tokeniser())
    tokens = encoder.encode(text)

    assert MARKS.keys().isdisjoint(tokens)
    assert b"".join(encoder.pieces_of(tokens)[token] for token in tokens) == text.encode()


def test_a_mark_that_we_wrote_is_one_token_and_the_start_stands_in_front() -> None:
    encoder = TextEncoder(tokeniser())

    assert encoder.encode_mark("<|im_end|>") == [258]
    assert encoder.encode_prompt("a") == [256, 97]
    assert (encoder.start_text, encoder.end_text) == ("<|endoftext|>", "<|im_end|>")


def test_sentence_piece_writes_spaces_and_bytes_otherwise() -> None:
    raw = HuggingFaceTokeniser(by_pieces, {}, "", "")

    assert raw.is_sentence_piece
    assert b"".join(map(raw.piece, raw.tokens(b"a b"))) == b" a b"
    raw._written = {1: "<0xC3>", 2: "\u2581root"}
    assert (raw.piece(1), raw.piece(2), raw.is_byte(1)) == (b"\xc3", b" root", True)


def test_a_token_that_a_byte_level_vocabulary_cannot_have_is_refused() -> None:
    raw = tokeniser()
    raw._written[7] = "日"

    with pytest.raises(UntrustedError, match="token 7 is written '日'"):
        raw.piece(7)
