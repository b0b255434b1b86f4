"""Many texts as rows of tokens in which no shared beginning occurs twice. Pure.

Sorted texts form a tree; its nodes, depth first, are the rows. A node belongs to every text below it, and because the
texts are sorted these are neighbours: text 3 to text 7. Each node is decoded once and seen by all of them.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from msgspec import Struct

Int32s = npt.NDArray[np.int32]

TILE_ROWS = 64
"""llama.cpp's fast attention kernel on a CPU works on tiles of this many rows, and on none that is less full."""


class Rows(Struct, frozen=True):
    """One row per node. The texts of row r are `first[r]` and the `count[r] - 1` that follow it."""

    token: Int32s
    depth: Int32s
    first: Int32s
    count: Int32s
    ends: Int32s  # for each text the row that ends it, ascending


def rows_of(texts: Sequence[Int32s]) -> Rows:
    """Return the rows of texts that are sorted, distinct and not empty."""
    lengths = np.fromiter(map(len, texts), np.int32, len(texts))
    # One column more than the longest, so that a text differs from one that goes on.
    table = np.full((len(texts), int(lengths.max()) + 1), -1, np.int32)
    for row, text in zip(table, texts, strict=True):
        row[: len(text)] = text
    shared = np.zeros(len(texts), np.int32)
    shared[1:] = (table[1:] != table[:-1]).argmax(axis=1)
    column = np.arange(table.shape[1], dtype=np.int32)
    own = (column >= shared[:, None]) & (column < lengths[:, None])
    first, depth = (axis.astype(np.int32) for axis in np.nonzero(own))
    return Rows(
        token=table[own],
        depth=depth,
        first=first,
        count=_last_below(shared, table.shape[1])[own] - first + 1,
        ends=(np.cumsum(own.sum(axis=1)) - 1).astype(np.int32),
    )


def order_of(texts: Sequence[Int32s]) -> list[int]:
    """Return the order that puts texts with a shared beginning side by side."""
    return sorted(range(len(texts)), key=lambda i: texts[i].astype(">i4").tobytes())


def stretches(rows: int) -> Iterator[tuple[int, int]]:
    """Cut rows into full tiles; the last takes the rest, for a tile that is not full is slow."""
    begin = 0
    while rows - begin >= 2 * TILE_ROWS:
        yield begin, begin + TILE_ROWS
        begin += TILE_ROWS
    yield begin, rows


def shares(lengths: Sequence[int], parts: int) -> list[tuple[int, int]]:
    """Cut a sequence into at most `parts` contiguous ranges of about the same total length; none is empty."""
    ends = np.cumsum(lengths)
    cuts = {int(np.searchsorted(ends, ends[-1] * part / parts)) + 1 for part in range(1, parts)} if len(ends) else set()
    bounds = [0, *sorted(cut for cut in cuts if cut < len(lengths)), len(lengths)]
    return [(begin, end) for begin, end in pairwise(bounds) if begin < end]


def _last_below(shared: Int32s, width: int) -> Int32s:
    """Return, for each text and depth, the last text that shares the node there."""
    last = np.empty((len(shared), width), np.int32)
    for text in reversed(range(len(shared))):
        last[text] = text
        if text + 1 < len(shared):
            both = shared[text + 1]
            last[text, :both] = last[text + 1, :both]
    return last
