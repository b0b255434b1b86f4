"""A stream gives the same records however it is cut into pieces, and says what it could not read."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflows.connectors.framer import Framer

LIMIT = 40
lines = st.binary(min_size=1, max_size=LIMIT).filter(
    lambda line: b"\n" not in line and not line[:1].isdigit() and line[0] not in b"\r\0"
)
messages = st.binary(max_size=LIMIT - 5).map(lambda rest: b"<134>" + rest)
cuts = st.lists(st.integers(0, 400), max_size=12)


def pieces(stream: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    return [stream[start:end] for start, end in pairwise(edges)]


def read(stream: bytes, cuts: list[int], limit: int = LIMIT) -> tuple[list[bytes], str]:
    framer = Framer(limit)
    records = [record for piece in pieces(stream, cuts) for record in framer.feed(piece)]
    return records + framer.flush(), framer.broken


def counted(message: bytes) -> bytes:
    return b"%d %s" % (len(message), message)


@given(st.lists(st.tuples(st.booleans(), messages | lines)), cuts)
def test_lines_after_counted_messages_come_out_as_they_went_in(sent: list[tuple[bool, bytes]], cuts: list[int]) -> None:
    counts = [count and message.startswith(b"<134>") and b"\n" not in message for count, message in sent]
    if not any(counts[:1]):
        counts = [False] * len(sent)
    stream = b"".join(
        counted(message) if count else message.replace(b"\n", b" ") + b"\n"
        for count, (_, message) in zip(counts, sent, strict=True)
    )

    records, broken = read(stream, cuts)

    assert broken == ""
    assert records == [
        (message if count else message.replace(b"\n", b" ")).rstrip(b"\r\n\0")
        for count, (_, message) in zip(counts, sent, strict=True)
    ]


@given(st.lists(messages, min_size=1), cuts)
def test_a_counted_message_may_hold_line_feeds(sent: list[bytes], cuts: list[int]) -> None:
    assert read(b"".join(map(counted, sent)), cuts) == ([message.rstrip(b"\r\n\0") for message in sent], "")


@given(st.binary(max_size=400), cuts, cuts)
def test_the_same_bytes_give_the_same_records_in_any_pieces(stream: bytes, one: list[int], other: list[int]) -> None:
    assert read(stream, one) == read(stream, other)


@given(st.binary(max_size=400), cuts)
def test_no_record_is_longer_than_one_byte_over_the_limit(stream: bytes, cuts: list[int]) -> None:
    records, _ = read(stream, cuts, limit=7)

    assert all(0 < len(record) <= 8 for record in records)


@given(st.lists(st.integers(1, 9).map(lambda n: b"<" * n), min_size=1))
def test_memory_held_between_pieces_is_bounded(sent: list[bytes]) -> None:
    framer = Framer(7)
    for message in sent:
        framer.feed(message)
        assert len(framer._rest) <= 8


@pytest.mark.parametrize(
    ("stream", "records"),
    [
        (b"<13>" + b"x" * 100 + b"\n<13>next\n", [b"<13>" + b"x" * 37, b"<13>next"]),
        (b"104 <13>" + b"x" * 100 + b"9 <13>next!", [b"<13>" + b"x" * 37, b"<13>next!"]),
        (b"<13>" + b"x" * 36 + b"\n<13>next\n", [b"<13>" + b"x" * 36, b"<13>next"]),
    ],
)
def test_a_message_over_the_limit_is_cut_and_the_next_one_read(stream: bytes, records: list[bytes]) -> None:
    assert read(stream, []) == (records, "")


@pytest.mark.parametrize(
    "stream",
    [
        b"123456789 monkeys\n",
        b"2026-11-21T12:00:00Z box app: up\n",
        b"29: *Mar  1 18:46:11: %SYS-5-CONFIG_I: x\n",
        b"7\n",
        b"12 monkeys\n",
    ],
)
def test_a_line_that_begins_with_a_figure_is_a_line(stream: bytes) -> None:
    assert read(stream, [1, 2, 3, 9, 10, 11]) == ([stream.rstrip()], "")


@given(st.lists(st.binary(max_size=LIMIT).filter(lambda line: b"\n" not in line)), cuts)
def test_a_stream_that_began_with_a_line_has_only_lines_whatever_they_say(sent: list[bytes], cuts: list[int]) -> None:
    records, broken = read(b"<134>x\n" + b"".join(line + b"\n" for line in sent), cuts)

    assert broken == ""
    assert records == [b"<134>x", *filter(None, (line.lstrip(b"\r\n\0").rstrip(b"\r\n\0") for line in sent))]


@pytest.mark.parametrize("hiding", [b"1000000 <134>hides", b"1200 <b>bold</b> html line"])
def test_a_line_that_looks_like_a_count_hides_nothing_of_what_follows(hiding: bytes) -> None:
    assert read(b"<134>first\n" + hiding + b"\n<134>next\n", [12, 15, 20]) == (
        [b"<134>first", hiding, b"<134>next"],
        "",
    )


@pytest.mark.parametrize("line", [b"1200 <b>bold</b> html line", b"7 <1345>x", b"7 <>x", b"7 <"])
def test_a_count_without_a_priority_is_a_line_from_the_first_message_on(line: bytes) -> None:
    assert read(line + b"\n<134>next\n", [1, 2, 3, 4, 5, 6]) == ([line, b"<134>next"], "")


@pytest.mark.parametrize("half", [b"9", b"9 ", b"9 <", b"9 <134", b"9 <134>tw"])
def test_half_a_header_of_a_sender_that_counts_is_pending_and_no_record(half: bytes) -> None:
    framer = Framer(LIMIT)
    assert framer.feed(b"8 <134>one" + half) == [b"<134>one"]
    assert framer.flush() == []
    assert framer.pending


def test_a_dated_line_after_a_count_is_broken_by_name() -> None:
    records, broken = read(b"8 <134>one2026-01-01 box app: up\n<134>next\n", [11, 13])
    assert (records, broken) == ([b"<134>one"], "a count and a message were due, found b'2026-'")


def test_a_last_line_without_its_line_feed_is_read_and_half_a_counted_message_is_not() -> None:
    assert read(b"<13>one\n<13>two", []) == ([b"<13>one", b"<13>two"], "")
    framer = Framer(LIMIT)
    assert framer.feed(b"7 <13>one9 <13>tw") == [b"<13>one"]
    assert framer.flush() == []
    assert framer.pending


def test_a_sender_that_counts_and_then_does_not_is_broken_and_nothing_before_it_is_lost() -> None:
    assert read(b"7 <13>one4x <13>two", []) == ([b"<13>one"], "a count and a message were due, found b'4x'")


def test_an_absurd_count_is_broken() -> None:
    assert read(b"99999999 <13>one", [])[1] == "a message of 99999999 bytes was announced, 1048576 are the most"
