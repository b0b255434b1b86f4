"""Lines come out with the offsets at which they stand, however the bytes come in."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from dataflows.connectors.lines import LineCutter


def read(stream: bytes, cuts: list[int], limit: int) -> tuple[list[tuple[int, bytes]], int]:
    cutter = LineCutter(limit)
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    lines = [line for start, end in pairwise(edges) for line in cutter.feed(stream[start:end])]
    return lines + cutter.flush(), cutter.offset


@given(
    st.lists(st.sampled_from([b"a", b"bc", b"\n", b"\r\n", b"\0", b"longer than most"])).map(b"".join),
    st.lists(st.integers(0, 200)),
    st.integers(1, 20),
)
def test_every_line_stands_where_it_says(stream: bytes, cuts: list[int], limit: int) -> None:
    lines, offset = read(stream, cuts, limit)

    assert offset == len(stream)
    expected = []
    at = 0
    for line in stream.split(b"\n"):
        record = line[: limit + 1] if len(line) > limit else line.rstrip(b"\r\n\0")
        if record:
            expected.append((at, record))
        at += len(line) + 1
    assert lines == expected


def test_the_offset_stays_at_the_start_of_a_line_that_is_not_complete() -> None:
    cutter = LineCutter(5)

    assert cutter.feed(b"one\ntwo and very long") == [(0, b"one")]
    assert cutter.offset == 4
    assert cutter.feed(b" indeed\nx\n") == [(4, b"two an"), (29, b"x")]
    assert cutter.offset == 31
