"""Texts of a window as rows without repeats."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from models.window import TILE_ROWS, Int32s, order_of, rows_of, shares, stretches

TEXTS = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=8), min_size=1, max_size=20, unique_by=tuple)


def arrays(texts: list[list[int]]) -> list[Int32s]:
    return [np.array(text, np.int32) for text in texts]


def test_a_shared_beginning_is_one_stretch_of_rows_that_belongs_to_all_who_share_it() -> None:
    rows = rows_of(arrays([[1, 2, 3], [1, 2, 4], [5]]))

    assert rows.token.tolist() == [1, 2, 3, 4, 5]
    assert rows.depth.tolist() == [0, 1, 2, 2, 0]
    assert rows.first.tolist() == [0, 0, 0, 1, 2]
    assert rows.count.tolist() == [2, 2, 1, 1, 1]
    assert rows.ends.tolist() == [2, 3, 4]


@settings(deadline=None)
@given(TEXTS)
def test_the_rows_of_a_text_spell_the_text(texts: list[list[int]]) -> None:
    given_texts = arrays(texts)
    ordered = [given_texts[i] for i in order_of(given_texts)]
    rows = rows_of(ordered)

    for number, text in enumerate(ordered):
        mine = (rows.first <= number) & (number < rows.first + rows.count)
        assert rows.token[mine].tolist() == text.tolist()
        assert rows.depth[mine].tolist() == list(range(len(text)))
        assert rows.ends[number] == np.flatnonzero(mine)[-1]


@settings(deadline=None)
@given(TEXTS)
def test_no_beginning_is_a_row_twice(texts: list[list[int]]) -> None:
    given_texts = arrays(texts)
    rows = rows_of([given_texts[i] for i in order_of(given_texts)])

    assert len(rows.token) == len({tuple(text[:end]) for text in texts for end in range(1, len(text) + 1)})


@settings(deadline=None)
@given(TEXTS)
def test_sorted_is_by_token_and_a_text_comes_before_what_goes_on_from_it(texts: list[list[int]]) -> None:
    assert [texts[i] for i in order_of(arrays(texts))] == sorted(texts)


@settings(deadline=None)
@given(st.integers(1, 2000))
def test_stretches_cover_all_rows_and_are_full_tiles_but_for_the_last(rows: int) -> None:
    cut = list(stretches(rows))

    assert [row for begin, end in cut for row in range(begin, end)] == list(range(rows))
    assert all(end - begin == TILE_ROWS for begin, end in cut[:-1])
    assert rows < TILE_ROWS or TILE_ROWS <= cut[-1][1] - cut[-1][0] < 2 * TILE_ROWS


@settings(deadline=None)
@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 8))
def test_shares_are_contiguous_and_none_exceeds_its_part_by_more_than_one_text(lengths: list[int], parts: int) -> None:
    cut = shares(lengths, parts)

    assert [text for begin, end in cut for text in range(begin, end)] == list(range(len(lengths)))
    assert len(cut) <= parts
    assert all(begin < end for begin, end in cut)
    assert all(sum(lengths[begin:end]) <= sum(lengths) / parts + max(lengths) for begin, end in cut)
