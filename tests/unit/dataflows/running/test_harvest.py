from pathlib import Path

from dataflows.running.harvest import Harvest
from models.contracts.scalars import EventId
from models.contracts.verdict import Verdict
from models.contracts.wire import encode_lines


def lines(*ids: str) -> bytes:
    return encode_lines(
        [
            Verdict(
                id=EventId(each),
                text="t",
                label="benign",
                confidence=0.9,
                probabilities={"benign": 0.9},
                label_mass=1.0,
                fields={},
                route="accepted",
                release="r-1",
                policy=1,
                source="s",
                received_at_ms=0,
            )
            for each in ids
        ]
    )


def test_half_a_line_waits_for_its_other_half(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    harvest = Harvest(path)
    assert harvest.gather() == []
    whole = lines("a", "b")
    path.write_bytes(whole[:-10])
    assert [verdict.id for verdict in harvest.gather()] == ["a"]
    path.write_bytes(whole)
    assert [verdict.id for verdict in harvest.gather()] == ["b"]
    assert harvest.gather() == []


def test_a_rotated_file_is_read_to_its_end_and_not_twice(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    harvest = Harvest(path)
    path.write_bytes(lines("a"))
    harvest.gather()
    with path.open("ab") as file:
        file.write(lines("b"))
    path.rename(tmp_path / "verdicts.000001.20260101T000000Z.jsonl")
    path.write_bytes(lines("c"))
    assert [verdict.id for verdict in harvest.gather()] == ["b", "c"]


def test_a_repeat_of_an_id_is_counted_and_not_new(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    harvest = Harvest(path)
    path.write_bytes(lines("a", "b", "a"))
    assert [verdict.id for verdict in harvest.gather()] == ["a", "b"]
    assert harvest.repeats == 1
