"""What strangers write stays text, in a vocabulary that has marks of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.llama import Model
from models.vocabulary import Vocabulary

MARKS = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "[PAD7]"]


@pytest.fixture(scope="module")
def vocabulary(instruct_file: Path) -> Iterator[Vocabulary]:
    with Model(instruct_file, vocabulary_only=True) as model:
        yield model.vocabulary


def spelled(vocabulary: Vocabulary, tokens: list[int]) -> bytes:
    return b"".join(vocabulary.pieces[token] for token in tokens)


@pytest.mark.parametrize("mark", MARKS)
def test_a_mark_in_an_event_is_the_text_it_looks_like(vocabulary: Vocabulary, mark: str) -> None:
    for text in (mark, f" {mark}", f"a{mark}{mark} b", mark * 50, mark[:-1]):
        # Control tokens have no bytes, so a mark that was parsed would be missing.
        assert spelled(vocabulary, vocabulary.encode(text)) == text.encode()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([*MARKS, "[", "PAD", "7]", " ", "é", "\x00", "\n", "root"]), max_size=12).map("".join))
def test_every_text_is_encoded_byte_for_byte(vocabulary: Vocabulary, text: str) -> None:
    assert spelled(vocabulary, vocabulary.encode(text)) == text.encode()


def test_a_lone_surrogate_is_a_question_mark(vocabulary: Vocabulary) -> None:
    assert spelled(vocabulary, vocabulary.encode("a\udc80b")) == b"a?b"


def test_a_mark_that_we_wrote_is_one_token(vocabulary: Vocabulary) -> None:
    (token,) = vocabulary.encode_mark("<|im_end|>")

    assert vocabulary.pieces[token] == b""


def test_the_piece_of_a_word_is_its_token(vocabulary: Vocabulary) -> None:
    assert vocabulary.encode(" critical") == [vocabulary.token_of_piece[b" critical"]]
