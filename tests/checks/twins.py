"""Texts in pairs that are masked alike, drawn from the beginnings and ends by which kinds of words are told."""

from hypothesis import strategies as st

UUID = "550e8400-e29b-41d4-a716-446655440000"

# Each half has the other's mask.
PAIRS = [
    ("10.0.0.1", "10.9.8.7"), ("203.0.113.9", "8.8.8.8"), ("fe80::1", "fe80::2"), ("12345", "54321"),
    ("51234", "44444"), ("1714979289", "1814979289"), ("1714979289123", "1814979289321"), ("12:34:56", "01:02:03"),
    ("2024-05-06T07:08:09.123Z", "2025-06-07"), ("Wed Jul 27 10:59:53 2005", "Sat Jul  9 22:53:22 CEST 2005"),
    ("1714979289.123:77", "1714979290.456:1"), ("345ms", "999ms"), ("12 bytes", "99 bytes"), ("pid 4321", "pid 77"),
    ("9f86d081884c7d65", "0f86d081884c7d65"), ("ab12" * 8, "cd34" * 8), (UUID, UUID.replace("5", "6")),
    ("0x7fdcc9d16380", "0x7fdcc9d16381"), ("0c:68:03:d6:c5:1c", "0C-68-03-D6-C5-1D"), ("1.2345", "9.87654"),
    ("from 10.0.0.1:51234", "from 10.0.0.2:44444"), ("from 10.0.0.1 port 51234", "from 10.0.0.2 port 44444"),
]  # fmt: skip
_MARKS = st.sampled_from([
    " ", "  ", '"', "'", '\\"', "\\", "=", ":", '":', ",", "{", "}", "[", "]", "(", ")", "<", ">", ".", "/", "|", "\n",
    "\u00a0", "port ", "pid ", "user ", "status=", "for ", " ms", '{"a":', '"args":[', "cmd=", "0x", "a", "B", "_", "é",
    "\uff11", "%", "null",
])  # fmt: skip
_PARTS = st.one_of(_MARKS.map(lambda mark: (mark, mark)), st.sampled_from(PAIRS))
TWINS = st.lists(_PARTS, max_size=16).map(lambda parts: ("".join(p[0] for p in parts), "".join(p[1] for p in parts)))
"""Two texts that differ in words of one kind each; in most places those are masked."""
TEXTS = st.one_of(TWINS.map(lambda twins: twins[0]), st.text(max_size=60))
