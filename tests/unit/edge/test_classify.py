import io
import json
import os
from io import BufferedReader
from pathlib import Path

import msgspec
import pytest

from dataflows.connectors.batch import Batch
from dataflows.operators.decode import PLAIN, Reading
from edge.classify import answer, windows
from models.contracts.event import DeadLetter
from models.contracts.policy import Policy
from models.contracts.verdict import Verdict
from tests.fakes.classifier import ScriptedClassifier


def read(path: Path) -> list[Batch]:
    with path.open("rb") as file:
        return list(windows(str(path), file))


def kinds(answers: list[Verdict | DeadLetter]) -> list[str]:
    return [each.reason if isinstance(each, DeadLetter) else each.label for each in answers]


@pytest.mark.parametrize(
    ("content", "records"),
    [
        (b"", []),
        (b"a", [b"a"]),
        (b"a\n", [b"a"]),
        (b"a\n\n", [b"a", b""]),
        (b"a\r\nb\x0bc\n\r\n", [b"a", b"b\x0bc", b""]),
        (b"\n", [b""]),
    ],
)
def test_every_line_is_one_record_whatever_ends_it(tmp_path: Path, content: bytes, records: list[bytes]) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(content)
    assert [record for lines in read(path) for record in lines.records] == records


def test_the_same_line_of_the_same_file_has_the_same_id_in_every_run(tmp_path: Path) -> None:
    path = tmp_path / "odd name+.log"
    path.write_bytes(b"a\n" * 3000)
    first, second = read(path), read(path)
    assert first == second
    ids = [own_id for lines in first for own_id in lines.ids]
    assert len(set(ids)) == 3000
    assert ids[2999].endswith(".3000")
    assert {lines.source for lines in first} == {"odd-name-.log"}
    other = tmp_path / "other.log"
    other.write_bytes(b"a\n")
    assert read(other)[0].ids[0] not in ids


def test_a_pipe_that_trickles_is_answered_line_by_line() -> None:
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb") as file:
        trickling = windows("-", file)
        for number in range(3):
            os.write(write_end, b"line %d\n" % number)
            assert next(trickling).records == [b"line %d" % number]
        os.write(write_end, b"without an end")
        os.close(write_end)
        assert [lines.ids for lines in trickling] == [["stdin.4"]]


def test_of_a_line_without_end_only_the_beginning_is_kept() -> None:
    file = BufferedReader(io.BytesIO(b"a" * (5 << 20) + b"\nnext\n"))  # type: ignore[arg-type]
    file.fileno = lambda: 0  # type: ignore[method-assign]
    ((long, after),) = [lines.records for lines in windows("-", file)]
    assert (len(long), after) == (1 << 20, b"next")


def test_each_line_has_its_answer_in_its_place() -> None:
    lines = Batch(
        source="s",
        received_at_ms=0,
        records=[b"attack", b"", b"poison", b"fine", b" \t"],
        ids=["o.1", "o.2", "o.3", "o.4", "o.5"],
    )
    answers = answer(lines, PLAIN, ScriptedClassifier(), Policy())
    assert kinds(answers) == ["critical", "empty", "refused-by-classifier", "benign", "empty"]
    assert [each.id for each in answers] == lines.ids


def test_json_lines_are_read_at_the_path_and_what_is_not_json_is_a_dead_letter() -> None:
    records = [b'{"m": {"text": "attack"}}', b"attack", b'{"m": 1}', b'{"m": {"text": ""}}']
    lines = Batch(source="s", received_at_ms=0, records=records, ids=["o.1", "o.2", "o.3", "o.4"])
    answers = answer(lines, Reading(text_path="m.text"), ScriptedClassifier(), Policy())
    assert kinds(answers) == ["critical", "not-json", "no-text-at-path", "empty"]


def test_the_contract_of_a_verdict_is_what_is_documented() -> None:
    lines = Batch(source="s", received_at_ms=0, records=[b"attack"], ids=["o.1"])
    (verdict,) = answer(lines, PLAIN, ScriptedClassifier(), Policy(number=4))
    found = json.loads(msgspec.json.encode(verdict))
    assert {
        key: found[key]
        for key in (
            "id",
            "text",
            "label",
            "confidence",
            "probabilities",
            "label_mass",
            "fields",
            "route",
            "release",
            "policy",
        )
    } == {
        "id": "o.1",
        "text": "attack",
        "label": "critical",
        "confidence": 0.95,
        "probabilities": {"benign": 0.02, "suspicious": 0.03, "critical": 0.95},
        "label_mass": 0.99,
        "fields": {},
        "route": "accepted",
        "release": "scripted-1",
        "policy": 4,
    }
