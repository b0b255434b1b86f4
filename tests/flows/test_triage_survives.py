"""The flow as a gateway runs it: killed at any moment, told to stop, with a far end that is away."""

import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from time import monotonic, sleep

import pytest

from dataflows.connectors.backlog import Backlog
from dataflows.connectors.spool import Arrival, Spool, SpoolReader
from models.contracts import wire
from tests.fakes.syslog_receiver import Receiver

SEED = 20260131


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()
    yield found
    found.stop()


def fill(folder: Path, start: int, stop: int) -> None:
    """Put numbered lines into the spool, some of them poison."""
    spool = Spool(folder / "spool.sqlite3", 1 << 30)
    spool.append(
        [
            Arrival("hosts", 1_700_000_000_000, [b"poison %d" % n if n % 97 == 0 else b"line %d" % n])
            for n in range(start, stop)
        ]
    )
    spool.close()


@contextmanager
def running(folder: Path, receiver: Receiver, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.flows.process", str(folder), str(receiver.port), *options],
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def drained(folder: Path, receiver: Receiver) -> None:
    with running(folder, receiver, "--drain") as process:
        assert process.wait(60) == 0, (folder / "log").read_text()


def numbers(folder: Path, name: str) -> Counter[int]:
    decode = wire.decode_verdict if name == "verdicts" else wire.decode_dead_letter
    path = folder / f"{name}.jsonl"
    content = path.read_bytes() if path.exists() else b""
    # What is being written may end in the middle of a line.
    records = [decode(line) for line in content[: content.rfind(b"\n") + 1].splitlines()]
    by_id = {record.id: getattr(record, "text", None) or record.raw.decode() for record in records}  # type: ignore[union-attr]
    return Counter(int(text.split()[1]) for text in by_id.values())


def received(receiver: Receiver) -> set[int]:
    return {int(found[1]) for message in receiver.messages if (found := re.search(rb"\] line (\d+)$", message))}


def until(true: object, what: str) -> None:
    assert callable(true)
    deadline = monotonic() + 30
    while not true():
        assert monotonic() < deadline, what
        sleep(0.005)


def expected(stop: int) -> tuple[Counter[int], Counter[int]]:
    lines = Counter(n for n in range(stop) if n % 97)
    return lines, Counter(n for n in range(stop) if n % 97 == 0)


def test_a_flow_that_is_killed_again_and_again_yields_one_verdict_or_one_dead_letter_for_every_event(
    tmp_path: Path, receiver: Receiver
) -> None:
    chance = Random(SEED)
    count = 8_000
    fill(tmp_path, 0, count)
    reader = SpoolReader(tmp_path / "spool.sqlite3")
    with_work_left = 0

    for _ in range(5):
        with running(tmp_path, receiver) as process:
            grown = (tmp_path / "verdicts.jsonl").stat().st_size if (tmp_path / "verdicts.jsonl").exists() else 0
            until(
                lambda grown=grown: (
                    (tmp_path / "verdicts.jsonl").exists() and (tmp_path / "verdicts.jsonl").stat().st_size > grown
                ),
                "verdicts are being written",
            )
            sleep(chance.uniform(0, 0.1))  # the moment of the kill
            process.send_signal(signal.SIGKILL)
            process.wait()
        with_work_left += reader.span()[0] < reader.span()[1]
    reader.close()
    assert with_work_left >= 2
    drained(tmp_path, receiver)

    lines, poison = expected(count)
    assert numbers(tmp_path, "verdicts") == lines
    assert numbers(tmp_path, "dead_letters") == poison
    receiver.until(lambda: received(receiver) == set(lines))


def test_a_siem_that_is_away_neither_stops_the_file_nor_loses_a_verdict_over_a_restart(
    tmp_path: Path, receiver: Receiver
) -> None:
    receiver.stop()
    fill(tmp_path, 0, 500)
    with running(tmp_path, receiver) as process:
        lines, poison = expected(500)
        until(lambda: numbers(tmp_path, "verdicts") == lines, "the file has every verdict")
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    assert receiver.messages == []

    receiver.start()
    fill(tmp_path, 500, 600)
    with running(tmp_path, receiver) as process:
        lines, poison = expected(600)
        receiver.until(lambda: received(receiver) == set(lines))
        until(lambda: numbers(tmp_path, "dead_letters") == poison, "the dead letters are there")
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0

    backlog = Backlog(tmp_path / "siem.sqlite3", 1)
    assert backlog.size == 0
    backlog.close()


def test_sigterm_under_load_ends_within_two_seconds_and_what_was_answered_is_not_answered_again(
    tmp_path: Path, receiver: Receiver
) -> None:
    receiver.stop()
    fill(tmp_path, 0, 8_000)
    with running(tmp_path, receiver) as process:
        until(lambda: (tmp_path / "verdicts.jsonl").exists() and numbers(tmp_path, "verdicts"), "verdicts are written")
        began = monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        took_s = monotonic() - began
    assert took_s < 2

    drained(tmp_path, receiver)

    lines, _ = expected(8_000)
    written = [wire.decode_verdict(line).id for line in (tmp_path / "verdicts.jsonl").read_bytes().splitlines()]
    assert len(written) == len(set(written)) == len(lines)


def test_the_spool_is_trimmed_of_what_is_committed(tmp_path: Path, receiver: Receiver) -> None:
    fill(tmp_path, 0, 500)
    with running(tmp_path, receiver):
        reader = SpoolReader(tmp_path / "spool.sqlite3")
        until(lambda: reader.span()[0] == reader.span()[1], "the spool is empty")
        reader.close()
