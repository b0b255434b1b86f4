"""Where values may stand in an event, which tokens stand for them, and whose they are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from models.contracts.release import Roles
from models.contracts.task import Field, Label, Task
from models.fields import VALUE_MAX_BYTES, occurs
from models.roles import RoleReader, Span, candidates, covered, role_names
from tests.checks.growth import grows_with_its_length

MOST = 512  # candidates of an event

TASK = Task(
    name="soc",
    instruction="",
    labels=(Label("benign", "routine"), Label("critical", "an attack")),
    default_label="critical",
    fields=(
        Field(name="source", description="where from"),
        Field(name="technique", description="how", kind="choice", choices=("T1110",)),
        Field(name="observable", description="what to search for", max_values=2),
    ),
)
NAMES = ("-", "source", "observable")
# A span's vector is the three logits themselves.
ROLES = Roles(names=NAMES, weights=np.eye(3, 4, dtype="<f4").tobytes())
EVENT = "alpha beta gamma delta"
ALPHA, BETA, GAMMA, DELTA = (0, 5), (6, 10), (11, 16), (17, 22)

PARTS = st.sampled_from([
    "a", "b", "-", "--", ".", ":", "_", " ", "=", '"', "'", "\\", ";", ",", "(", ")", "\n", "\r", "\x1c", "\u2028", "*",
    "10.0.0.1", "10.0.0.1.in-addr.arpa", "ip-10.0.0.1", "root@host.example", "x@y.z.", "/etc/passwd", "key=", "é", "ß",
    "\u2603", "\ud800", "日本", '"two words"', "-a.-b", "w" * 127, "é" * 64, "é" * 65,
])  # fmt: skip
EVENTS = st.one_of(st.lists(PARTS, max_size=16).map("".join), st.text(max_size=60))

HOSTILE_UNITS = [
    "a", "é", "7", " ", ".", "-", "_", "+", "@", "=", '"', "'", "\\", '\\"', '"\\"', '"a', "'a", "a.", ".a", "a-", "a@",
    "a@b", "a@b.", "1.", "1.2.3.4", "1.2.3.4 ", "a=", "=a;", "a b ", '"a b" ', ".:!", "(a)", "a;",
]  # fmt: skip


def values(event: str) -> list[str]:
    return [event[begin:end] for begin, end in candidates(event)]


def read(*rows: tuple[Span, tuple[float, float, float]]) -> dict[str, tuple[str, ...]]:
    """Read spans of `EVENT`, each with its logits for none, `source` and `observable`."""
    return RoleReader(ROLES, TASK).read(EVENT, [span for span, _ in rows], np.array([row for _, row in rows], "f4"))


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ("Failed password for root", ["Failed", "password", "for", "root"]),
        ('name="web server 1" x', ["name", "web", "web server 1", "server", "1", "x"]),
        ("name='web server' x", ["name", "web", "web server", "server", "x"]),
        ("user=root,uid=0&gid=7 x", ["user", "root", "uid", "0", "0&gid", "7", "x"]),
        ("url=http://a/?q=x", ["url", "http://a/?q", "http://a/?q=x", "x"]),
        ("from 10.0.0.1:22.", ["from", "10.0.0.1", "10.0.0.1:22"]),
        ("to <root@host.example>: hello!", ["to", "root@host.example", "hello"]),
        ("mailto:root@host.example?cc", ["mailto:root@host.example?cc", "root@host.example"]),
        ("open (/etc/passwd)", ["open", "/etc/passwd"]),
        ("*bold* `code`", ["bold", "code"]),
        ("-- ... = \"\" '' ; ()", []),
        ("", []),
    ],
)
def test_a_value_may_stand_where_every_log_puts_one(event: str, expected: list[str]) -> None:
    assert sorted(values(event)) == sorted(expected)


@pytest.mark.parametrize(
    ("event", "cut"),
    [
        ("4.3.2.1.in-addr.arpa", "4.3.2.1"),
        ("range 0.0.0.0-255.255.255.255", "255.255.255.255"),
        ("ip-10.0.0.1.internal", "10.0.0.1"),
        ("oid 1.2.840.10008.5.1.4.1", "5.1.4.1"),
        ("to a@b.c.\u2603", "a@b.c"),
        ("x=root\u2603", "root"),
    ],
)
def test_a_candidate_cuts_no_word(event: str, cut: str) -> None:
    assert cut in event
    assert cut not in values(event)


def test_a_candidate_is_no_longer_than_a_value_and_has_nothing_in_it_that_parts_values() -> None:
    longest, longer = "w" * VALUE_MAX_BYTES, "w" * (VALUE_MAX_BYTES + 1)

    assert values(f'{longest} {longer} "a;b" "a\nb" "a\rb"') == [longest, "a", "b", "a", "b", "a", "b"]
    assert values("é" * (VALUE_MAX_BYTES // 2)) == ["é" * (VALUE_MAX_BYTES // 2)]
    assert values("é" * (VALUE_MAX_BYTES // 2 + 1)) == []


def test_of_more_candidates_than_are_looked_at_the_first_stay() -> None:
    words = [f"w{number}" for number in range(MOST + 88)]

    assert values(" ".join(words)) == words[:MOST]


@given(EVENTS)
def test_every_candidate_is_a_value_of_the_event(event: str) -> None:
    spans = candidates(event)

    assert spans == sorted(set(spans))
    assert len(spans) <= MOST
    for value in values(event):
        assert occurs(value, event)
        assert value == value.strip()
        assert not any(mark in value for mark in ";\r\n")
        assert 0 < len(value.encode("utf-8", "replace")) <= VALUE_MAX_BYTES


@pytest.mark.parametrize("unit", HOSTILE_UNITS)
def test_a_hostile_event_has_its_candidates_in_time_by_its_length(unit: str) -> None:
    assert grows_with_its_length(candidates, "", unit)


def test_a_span_is_covered_by_the_tokens_that_stand_for_a_part_of_it() -> None:
    tokens = [(0, 5), (6, 8), (8, 10), (11, 22), (11, 22)]  # the last two, of one word that names a kind

    assert covered([ALPHA, BETA, GAMMA, (5, 6), (0, 22), (22, 30)], tokens) == [
        (0, 1), (1, 3), (3, 5), (1, 1), (0, 5), (5, 5),
    ]  # fmt: skip
    assert covered([ALPHA], []) == [(0, 0)]
    assert covered([], tokens) == []


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4)), max_size=12),
    st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=6),
)
def test_a_span_is_covered_by_just_the_tokens_that_touch_it(
    steps: list[tuple[int, int]], wanted: list[tuple[int, int]]
) -> None:
    tokens: list[Span] = []
    for gap, length in steps:
        begin = (tokens[-1][1] if tokens else 0) + gap
        tokens.append((begin, begin + length))
    spans = [(begin, begin + length) for begin, length in wanted]

    for (begin, end), (first, last) in zip(spans, covered(spans, tokens), strict=True):
        touching = [at for at, token in enumerate(tokens) if token[0] < end and begin < token[1]]
        assert list(range(first, last)) == touching


def test_the_outputs_of_the_layer_are_none_and_the_copied_fields() -> None:
    assert role_names(TASK.fields) == NAMES


def test_a_span_goes_to_its_likeliest_field_or_to_none() -> None:
    assert read((ALPHA, (0, 2, 1)), (BETA, (3, 2, 1)), (GAMMA, (0, 1, 2))) == {
        "source": ("alpha",),
        "observable": ("gamma",),
    }
    assert read((ALPHA, (3, 2, 1))) == {}
    assert RoleReader(ROLES, TASK).read(EVENT, [], np.empty((0, 3), np.float32)) == {}


def test_a_field_has_no_more_values_than_the_task_gives_it_the_likeliest_first() -> None:
    rows = ((ALPHA, (0.0, 0.0, 1.0)), (BETA, (0.0, 0.0, 3.0)), (GAMMA, (0.0, 0.0, 2.0)), (DELTA, (0.0, 4.0, 0.0)))

    assert read(*rows) == {"source": ("delta",), "observable": ("beta", "gamma")}
    assert read(*rows[::-1]) == read(*rows)


def test_likely_is_what_is_likely_beside_its_other_outputs_and_not_what_has_large_logits() -> None:
    assert read((ALPHA, (99, 100, 0)), (BETA, (0, 5, 0))) == {"source": ("beta",)}


def test_of_spans_that_overlap_the_likeliest_stays_whichever_field_the_others_are_for() -> None:
    both = (0, 10)

    assert read((ALPHA, (0, 0, 1)), (both, (0, 0, 2)), (BETA, (0, 3, 0))) == {
        "source": ("beta",),
        "observable": ("alpha",),
    }
    assert read((ALPHA, (0, 0, 1)), (both, (0, 0, 4)), (BETA, (0, 3, 0))) == {"observable": ("alpha beta",)}


def test_a_value_that_stands_twice_is_one() -> None:
    vectors = np.array([[0, 0, 2], [0, 0, 3], [0, 0, 1]], np.float32)

    assert RoleReader(ROLES, TASK).read("root as root on web", [(0, 4), (8, 12), (16, 19)], vectors) == {
        "observable": ("root", "web")
    }


def test_the_last_number_of_a_row_is_its_bias() -> None:
    layer = np.array([[1, 0, 0, 0], [0, 1, 0, 5], [0, 0, 1, 0]], "<f4")
    reader = RoleReader(replace(ROLES, weights=layer.tobytes()), TASK)

    assert reader.width == 3
    assert reader.read(EVENT, [ALPHA], np.array([[4, 0, 0]], np.float32)) == {"source": ("alpha",)}
    assert reader.read(EVENT, [ALPHA], np.array([[6, 0, 0]], np.float32)) == {}


def test_a_layer_may_know_some_of_the_fields_in_an_order_of_its_own() -> None:
    reader = RoleReader(Roles(names=("-", "observable"), weights=np.eye(2, 3, dtype="<f4").tobytes()), TASK)

    assert reader.read(EVENT, [ALPHA, BETA], np.array([[0, 1], [1, 0]], np.float32)) == {"observable": ("alpha",)}
