"""A text that is too long is cut between words, and at both ends alike."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.ends import ends_of_text, ends_of_tokens
from models.fields import occurs

BYTES = [bytes([byte]) for byte in range(256)]


@pytest.mark.parametrize("limit", range(20, 40))
def test_an_address_at_the_cut_is_kept_whole_or_left_out(limit: int) -> None:
    text = "from 203.0.113.17 to 198.51.100.23, " * 4
    by_text = ends_of_text(text, limit)
    by_token = [bytes(end).decode() for end in ends_of_tokens(list(text.encode()), limit, BYTES)]

    assert by_text == by_token
    for end in by_text:
        assert all(occurs(word, text) for word in end.replace(",", " ").split())


def test_a_word_longer_than_what_is_kept_is_cut_all_the_same() -> None:
    assert ends_of_text("a" * 500 + "b" * 500, 100) == ["a" * 50, "b" * 50]


@settings(deadline=None)
@given(st.text(alphabet="ab1.é -", max_size=200), st.integers(1, 100))
def test_the_ends_are_ends_and_never_more_than_the_limit(text: str, limit: int) -> None:
    head, *tails = ends_of_text(text, limit)

    assert text.startswith(head)
    assert all(text.endswith(tail) for tail in tails)
    assert sum(map(len, (head, *tails))) <= limit
    assert tails or head == text
