"""The spool's disk fills up: nothing that was accepted is lost, and it goes on by itself when there is room."""

import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from dataflows.connectors.spool import SpoolReader
from tests.conftest import absent
from tests.real.intake import IntakeProcess, running, wait_until

TCP = '[[sources]]\nkind = "syslog-tcp"\nname = "tcp"\nport = 0\n'
UDP = '[[sources]]\nkind = "syslog-udp"\nname = "udp"\nport = 0\n'
LINES = [b"<13>%07d %s" % (n, b"x" * 490) for n in range(60_000)]  # 30 MB


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 40 MB that is nobody else's."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(disk)], check=False, capture_output=True
    )
    if mounted.returncode:
        absent(f"no file system may be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    assert os.statvfs(ballast.parent).f_bavail == 0


def send(port: int) -> threading.Thread:
    def stream() -> None:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"".join(line + b"\n" for line in LINES))

    thread = threading.Thread(target=stream, daemon=True)
    thread.start()
    return thread


def read_and_trim(reader: SpoolReader, seen: list[bytes]) -> None:
    rows = wait_until(lambda: reader.read(0, 100), "more rows")
    seen.extend(record for row in rows for record in row.arrival.records)
    reader.trim(rows[-1].seq + 1)


def test_a_stream_waits_for_room_on_a_disk_that_the_spool_has_filled(small_disk: Path) -> None:
    with running(IntakeProcess(small_disk, TCP, spool_max_bytes=1 << 30)) as intake:
        sending = send(intake.ports["tcp"])
        wait_until(lambda: intake.status().refusing, "a full disk")
        reader = SpoolReader(intake.state / "spool.sqlite3")
        seen: list[bytes] = []
        while len(seen) < len(LINES):
            read_and_trim(reader, seen)
        sending.join(30)
        assert intake.stop() == 0
        assert reader.status().counters.losses == {}
        reader.close()

    assert seen == LINES


def test_a_disk_that_others_have_filled_is_used_again_when_they_make_room(small_disk: Path, tmp_path: Path) -> None:
    ballast = small_disk / "ballast"
    intake = IntakeProcess(small_disk, TCP + UDP, spool_max_bytes=1 << 30)
    intake.log = tmp_path / "intake.log"
    with running(intake):
        fill(ballast)
        with socket.create_connection(("127.0.0.1", intake.ports["tcp"])) as stream:
            stream.sendall(b"<13>waits\n")
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
                datagrams.sendto(b"<13>is lost", ("127.0.0.1", intake.ports["udp"]))
            wait_until(lambda: "spool_refuses" in intake.log.read_text(), "the refusal")
            ballast.unlink()
            intake.wait_for_events(1)
            wait_until(lambda: intake.status().counters.losses == {("udp", "disk"): 1}, "the count")
        assert intake.stop() == 0

    assert intake.records() == [b"<13>waits"]


def test_a_stream_waits_for_room_under_the_limit(tmp_path: Path) -> None:
    with running(IntakeProcess(tmp_path, TCP, spool_max_bytes=2 << 20)) as intake:
        sending = send(intake.ports["tcp"])
        reader = SpoolReader(intake.state / "spool.sqlite3")
        wait_until(lambda: reader.status().refusing, "a full spool")
        seen: list[bytes] = []
        while len(seen) < len(LINES):
            assert reader.status().bytes <= 2 << 20
            read_and_trim(reader, seen)
        sending.join(30)
        assert intake.stop() == 0
        assert reader.status().counters.losses == {}
        reader.close()

    assert seen == LINES
