import json
import re
from collections import Counter
from pathlib import Path

import pytest
from msgspec.structs import replace

from models.contracts.task import Task
from models.contracts.wire import decode_toml
from models.fields import occurs, transcript_pieces
from quantize.event_types import EventType, FieldRoles, read_event_types
from quantize.expand import Example, Line, example_of, expand
from quantize.sample import LINES, sample_lines

ROOT = Path(__file__).parents[3]
TASK = decode_toml((ROOT / "models/tasks/soc-triage.toml").read_text(encoding="utf-8"), Task, "soc-triage.toml")
TYPES = read_event_types()[::7]


def is_a_record(template: str) -> bool:
    return template.startswith('{"') and template.endswith("}")


SSH = EventType(
    product="OpenSSH",
    family="login",
    format="syslog",
    label="suspicious",
    technique="T1110.001",
    templates=("{ts_bsd} {host} sshd[{pid}]: Failed password for {user} from {ext_ip} port {hiport} ssh2",),
    fields=FieldRoles(source="{ext_ip}", target="{device}", observable=("{user}",)),
)


RECORDS = [kind for kind in TYPES if any(is_a_record(template) for template in kind.templates)]


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


def test_no_line_holds_an_alternative(lines: list[Line]) -> None:
    assert [line.text for line in lines if re.search(r"\[\[[^\[\]]*\|[^\[\]]*\]\]", line.text)] == []


def test_every_template_of_a_json_record_expands_to_json() -> None:
    records = [replace(kind, templates=tuple(filter(is_a_record, kind.templates))) for kind in RECORDS]
    broken = []
    for line in expand(records, copies=1, seed=5):
        body = line.text[line.text.index("{") :]  # behind the envelope
        try:
            json.loads(body)
        except ValueError as error:
            broken.append((line.product, str(error), body))

    assert broken == []


def is_forwarded(body: str) -> bool:
    return (
        body.startswith('{"')
        and '"' in body
        and any(f'"{key}":' in body for key in ("message", "MESSAGE", "log", "short_message"))
    )


def texts_of(template: str, copies: int = 60) -> Counter[str]:
    """What becomes of a template outside of a forwarder's JSON, without a program's name that may stand in front."""
    kind = EventType("Anything", "any", "text", "benign", (template,))
    bodies = (example_of(line, TASK).body for line in expand([kind], copies=copies, seed=2))
    return Counter(re.sub(r"^\w+(\[\d+\])?: ", "", body) for body in bodies if not is_forwarded(body))


def test_one_of_the_alternatives_is_chosen_for_every_copy() -> None:
    found = texts_of("the door is [[open|shut|ajar]] and [[locked|not]]")

    assert set(found) == {
        f"the door is {one} and {other}" for one in ("open", "shut", "ajar") for other in ("locked", "not")
    }


def test_an_alternative_may_be_empty_or_hold_placeholders() -> None:
    found = texts_of("door[[| opened by {user}]] at last")

    assert found["door at last"] > 10
    assert all(re.fullmatch(r"door( opened by \S+)? at last", text) for text in found)
    assert len(found) > 10


@pytest.mark.parametrize("template", ["a [[list]] of [one|two]", '{{"rows": [["a", "b"], ["c|d"]]}}', "x[[]]y"])
def test_brackets_that_part_no_alternatives_stay(template: str) -> None:
    assert set(texts_of(template, copies=5)) == {template}


def test_a_role_of_a_placeholder_in_the_alternative_that_was_not_chosen_is_absent() -> None:
    kind = replace(SSH, templates=("a failed login [[from {ext_ip}|by {user}]]",))
    found = [example_of(line, TASK) for line in expand([kind], copies=60, seed=2)]
    by_address = [example for example in found if " from " in example.body]

    assert 10 < len(by_address) < 50
    assert all(example.fields.keys() == {"source", "technique"} for example in by_address)
    assert all(example.fields.keys() == {"technique", "observable"} for example in found if example not in by_address)


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
    bodies = [example_of(line, TASK).body for line in expand([SSH], copies=20, seed=1)]

    assert all(body.startswith(("sshd: Failed password for ", "{")) for body in bodies)


def test_the_shipped_sample_is_what_the_script_writes() -> None:
    shipped = (ROOT / "edge/sample.log").read_text(encoding="utf-8")

    assert shipped == "".join(f"{line}\n" for line in sample_lines(read_event_types()))
    assert len(set(shipped.splitlines())) == LINES >= 2_000
    assert len(shipped.encode()) < 1_000_000
