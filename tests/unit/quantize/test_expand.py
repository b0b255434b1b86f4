import re
from pathlib import Path

import pytest

from models.contracts.task import Task
from models.contracts.wire import decode_toml
from models.fields import occurs, transcript_pieces
from quantize.event_types import EventType, FieldRoles, read_event_types
from quantize.expand import Example, Line, example_of, expand
from quantize.sample import LINES, sample_lines

ROOT = Path(__file__).parents[3]
TASK = decode_toml((ROOT / "models/tasks/soc-triage.toml").read_text(encoding="utf-8"), Task, "soc-triage.toml")
TYPES = read_event_types()[::7]
SSH = EventType(
    product="OpenSSH",
    family="login",
    format="syslog",
    label="suspicious",
    technique="T1110.001",
    templates=("{ts_bsd} {host} sshd[{pid}]: Failed password for {user} from {ext_ip} port {hiport} ssh2",),
    fields=FieldRoles(source="{ext_ip}", target="{device}", observable=("{user}",)),
)


@pytest.fixture(scope="module")
def lines() -> list[Line]:
    return list(expand(TYPES, copies=1, seed=3))


@pytest.fixture(scope="module")
def examples(lines: list[Line]) -> list[Example]:
    return [example_of(line, TASK) for line in lines]


def test_the_same_seed_gives_the_same_lines_whatever_else_is_expanded(lines: list[Line]) -> None:
    alone = list(expand(TYPES[5:6], copies=1, seed=3))

    assert alone
    assert set(alone) <= set(lines)


def test_another_seed_gives_other_lines(lines: list[Line]) -> None:
    others = {line.text for line in expand(TYPES, copies=1, seed=4)}

    assert sum(line.text in others for line in lines) < len(lines) * 0.1


def test_no_line_holds_a_placeholder_or_a_line_end(lines: list[Line]) -> None:
    left = re.compile(r"\{(ts_\w+|host|user|ip|ext_ip|pid|n|big|hex\d+|cve)\}")

    assert [line.text for line in lines if left.search(line.text) or len(line.text.splitlines()) != 1] == []


def test_every_copied_field_occurs_in_what_the_model_reads(examples: list[Example]) -> None:
    copied = [field.name for field in TASK.fields if field.kind == "copied"]
    strangers = [
        (value, example.body)
        for example in examples
        for name in copied
        for value in example.fields.get(name, ())
        if not occurs(value, example.body)
    ]

    assert strangers == []


def test_every_answer_can_be_written_as_a_transcript(examples: list[Example]) -> None:
    for example in examples:
        transcript_pieces(TASK, example.label, example.fields)


def test_benign_events_have_no_fields(examples: list[Example]) -> None:
    assert {example.label for example in examples if example.fields} == {"suspicious", "critical"}


def test_a_role_whose_placeholder_the_template_lacks_is_absent() -> None:
    example = example_of(next(expand([SSH], copies=1, seed=1)), TASK)

    assert set(example.fields) == {"source", "technique", "observable"}


def test_a_sub_technique_that_is_no_choice_counts_as_its_parent() -> None:
    assert example_of(next(expand([SSH], copies=1, seed=1)), TASK).fields["technique"] == ("T1110",)


def test_a_field_that_noise_cuts_away_is_no_field_any_more() -> None:
    line = next(expand([SSH], copies=1, seed=1))

    assert "source" not in example_of(line, TASK, lambda body: body[:20]).fields


def test_the_header_is_gone_from_what_the_model_reads() -> None:
    bodies = {example_of(line, TASK).body[:29] for line in expand([SSH], copies=20, seed=1)}

    assert all(body.startswith("sshd: Failed password for ") for body in bodies)


def test_the_shipped_sample_is_what_the_script_writes() -> None:
    shipped = (ROOT / "edge/sample.log").read_text(encoding="utf-8")

    assert shipped == "".join(f"{line}\n" for line in sample_lines(read_event_types()))
    assert len(set(shipped.splitlines())) == LINES >= 2_000
    assert len(shipped.encode()) < 1_000_000
