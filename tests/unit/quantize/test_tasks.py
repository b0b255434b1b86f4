import re
from collections import Counter
from ipaddress import ip_address, ip_network
from pathlib import Path

import msgspec
import pytest

from models.contracts.errors import ConfigError
from models.contracts.scalars import UnixMillis
from models.contracts.task import Task
from models.fields import occurs, transcript_pieces
from models.header import split
from quantize.event_types import read_event_types
from quantize.labelled import read_labelled
from quantize.recipe import read_task

ROOT = Path(__file__).parents[3]
TASKS = sorted((ROOT / "models" / "tasks").glob("*.toml"))
CORPORA = ROOT / "quantize" / "corpora"
OF_EVENT_TYPES = {"soc-triage"}
LABELLED = [path for task in TASKS if task.stem not in OF_EVENT_TYPES for path in (CORPORA / task.stem).glob("*.jsonl")]
WITH_FIELDS = [path for path in LABELLED if path.name == "golden.jsonl"]
DOCUMENTATION = [ip_network(net) for net in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")]
NOW_MS: UnixMillis = 1_767_225_600_000

every_task = pytest.mark.parametrize("path", TASKS, ids=lambda path: path.stem)
every_labelled_file = pytest.mark.parametrize("path", LABELLED, ids=lambda path: f"{path.parent.name}/{path.name}")
every_file_with_fields = pytest.mark.parametrize("path", WITH_FIELDS, ids=lambda path: path.parent.name)


class Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A line of a labelled file as it is written."""

    text: str
    label: str
    fields: dict[str, tuple[str, ...]] = {}


def rows(path: Path) -> list[Row]:
    return [msgspec.json.decode(line, type=Row) for line in path.read_bytes().splitlines()]


def task_of(path: Path) -> Task:
    return read_task(ROOT / "models" / "tasks" / f"{path.parent.name}.toml")


@every_task
def test_a_task_is_called_like_its_file(path: Path) -> None:
    assert read_task(path).name == path.stem


@every_task
def test_a_key_that_nobody_knows_is_refused_in_a_task_file(path: Path, tmp_path: Path) -> None:
    changed = tmp_path / path.name
    changed.write_text(f'colour = "red"\n{path.read_text(encoding="utf-8")}', encoding="utf-8")

    with pytest.raises(ConfigError, match="colour"):
        read_task(changed)


@every_task
def test_no_two_labels_or_fields_of_a_task_are_described_alike(path: Path) -> None:
    task = read_task(path)
    said = [label.description for label in task.labels] + [field.description for field in task.fields]

    assert [text for text, times in Counter(map(str.casefold, said)).items() if times > 1 or not text.strip()] == []


@every_task
def test_the_guide_names_every_label_and_every_field_of_the_task(path: Path) -> None:
    task = read_task(path)
    guide = (ROOT / "docs" / "tasks" / f"{path.stem}.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| `([A-Za-z0-9_.?-]+)` \|", guide, flags=re.MULTILINE))

    assert {*task.label_names, *(field.name for field in task.fields)} == named


@every_task
def test_every_label_of_a_task_occurs_in_its_data(path: Path) -> None:
    task, files = read_task(path), [file for file in LABELLED if file.parent.name == path.stem]
    if path.stem in OF_EVENT_TYPES:
        found = {kind.label for kind in read_event_types(CORPORA / path.stem)}
    else:
        found = {event.label for file in files for event in read_labelled(file, task)}

    assert found == set(task.label_names)


@every_labelled_file
def test_a_labelled_file_is_read_with_all_its_fields(path: Path) -> None:
    events = read_labelled(path, task_of(path))

    assert [(event.text, event.label, event.fields) for event in events] == [
        (row.text, row.label, row.fields) for row in rows(path)
    ]


@every_file_with_fields
def test_no_text_is_measured_twice(path: Path) -> None:
    assert [text for text, times in Counter(row.text for row in rows(path)).items() if times > 1] == []


@every_file_with_fields
def test_every_answer_can_be_written_as_a_model_has_to_write_it(path: Path) -> None:
    task = task_of(path)

    for row in rows(path):
        assert transcript_pieces(task, row.label, row.fields)[0] == f" {row.label}"
        assert row.label in task.fields_for or row.fields == {}


@every_file_with_fields
def test_what_a_gateway_cuts_off_the_front_of_a_text_is_no_value(path: Path) -> None:
    copied = {field.name for field in task_of(path).fields if field.kind == "copied"}
    lost = [
        (value, row.text)
        for row in rows(path)
        for name in copied & row.fields.keys()
        for value in row.fields[name]
        if not occurs(value, split(row.text, NOW_MS).body)
    ]

    assert lost == []


@every_file_with_fields
def test_every_field_of_a_task_is_measured(path: Path) -> None:
    assert {name for row in rows(path) for name in row.fields} == {field.name for field in task_of(path).fields}


@every_file_with_fields
def test_addresses_are_those_of_documentation_and_domains_those_of_nobody(path: Path) -> None:
    texts = [row.text.replace("[.]", ".") for row in rows(path)]
    addresses = [ip_address(found) for text in texts for found in re.findall(r"\b\d{1,3}(?:\.\d{1,3}){3}\b", text)]
    hosts = [host for text in texts for host in re.findall(r"(?:@|://|www\.)([\w-]+(?:\.[\w-]+)+)", text)]
    outside = [address for address in addresses if not any(address in net for net in DOCUMENTATION)]

    assert outside == []
    assert [host for host in hosts if not host.endswith(".example") and host not in map(str, addresses)] == []
