"""The transcript of an answer, and what counts as a value of an event."""

import pytest

from models.contracts.errors import InputError
from models.contracts.task import Field, Label, Task
from models.fields import occurs, transcript_pieces

TASK = Task(
    name="soc",
    instruction="Read one event.",
    labels=(Label("benign", "routine"), Label("critical", "an attack")),
    default_label="critical",
    fields_for=("critical",),
    fields=(
        Field(name="source", description="where from"),
        Field(name="technique", description="how", kind="choice", choices=("T1110", "T1190")),
        Field(name="observable", description="what to search for", max_values=2),
    ),
)


def test_every_field_of_the_task_is_written_in_order_and_a_missing_one_is_absent() -> None:
    pieces = transcript_pieces(TASK, "critical", {"observable": ["root", "/etc/passwd"], "technique": ["T1190"]})

    assert pieces == [
        " critical", "\nsource:", " -", "\ntechnique:", " T1190", "\nobservable:", " root", ";", " /etc/passwd", "\n",
    ]  # fmt: skip


def test_a_label_without_fields_is_the_label_and_the_end() -> None:
    assert transcript_pieces(TASK, "benign", {"source": ["10.0.0.1"]}) == [" benign", "\n"]


@pytest.mark.parametrize(
    ("label", "fields"),
    [
        ("harmless", {}),
        ("critical", {"port": ["22"]}),
        ("critical", {"technique": ["T1234"]}),
        ("critical", {"source": ["a", "b"]}),
        ("critical", {"source": ["a;b"]}),
        ("critical", {"source": ["a\nb"]}),
        ("critical", {"source": [" a"]}),
        ("critical", {"source": [""]}),
        ("critical", {"observable": ["-", "a"]}),
        ("critical", {"source": ["x" * 129]}),
    ],
)
def test_what_cannot_be_written_and_read_back_is_refused(label: str, fields: dict[str, list[str]]) -> None:
    with pytest.raises(InputError):
        transcript_pieces(TASK, label, fields)


@pytest.mark.parametrize(
    ("value", "text", "expected"),
    [
        ("10.0.0.1", "from 10.0.0.1:22", True),
        ("10.0.0.1", "from 110.0.0.1", False),
        ("10.0.0", "from 10.0.0.1", False),
        ("0.0.1", "from 10.0.0.1", False),
        ("evil.example", "GET http://evil.example/x", True),
        ("evil.example", "blocked evil.example.", True),
        ("web", "on web-01", False),
        ("/etc/passwd", "cat /etc/passwd", True),
        ("root", "root@host", True),
        ("müller", "user=müller", True),
        ("mü", "user=müller", False),
        ("", "anything", False),
        ("root", "uprooted root", True),
    ],
)
def test_a_value_occurs_where_it_stands_as_whole_words(value: str, text: str, expected: bool) -> None:  # noqa: FBT001
    assert occurs(value, text) is expected
