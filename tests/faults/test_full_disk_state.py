"""The disk under the state directory fills up: the gateway says so, comes back, and has lost nothing."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic

import pytest

from tests.conftest import absent
from tests.faults.gateway import SAMPLE, STARTS_WITHIN_S, Gateway, running, wait_until


@pytest.fixture
def gateway(tmp_path: Path, quick_model: Path) -> Iterator[Gateway]:
    """A gateway whose state lies on a file system of 40 MB that is nobody else's."""
    made = Gateway(tmp_path, quick_model)
    made.state.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(made.state)], check=False, capture_output=True
    )
    if mounted.returncode:
        absent(f"no file system may be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield made
    finally:
        subprocess.run(["umount", "--lazy", str(made.state)], check=True)


def fill(ballast: Path, leave: int = 0) -> None:
    """Take all room but `leave` bytes: a disk that fills up within one look can still end the process."""
    with ballast.open("ab", buffering=0) as file, suppress(OSError):
        while (disk := os.statvfs(ballast)).f_bavail * disk.f_frsize > leave or not leave:
            file.write(b"x" * 4096)


def test_a_full_disk_under_the_state_loses_nothing_and_the_gateway_lives_on_it(gateway: Gateway) -> None:
    reserve, ballast = gateway.state / "reserve", gateway.state / "ballast"
    with running(gateway):
        gateway.send(*SAMPLE[:50])
        gateway.await_answers(50)
        wait_until(reserve.exists, gateway.process.log_tail)
        process = gateway.process.pid
        fill(ballast, leave=3 << 20)
        wait_until(lambda: not reserve.exists(), gateway.process.log_tail)
        with gateway.connect() as waiting:
            waiting.sendall("".join(f"<14>{line}\n" for line in SAMPLE[50:100]).encode())
        until = monotonic() + 3.0  # fifteen epochs
        wait_until(lambda: monotonic() > until, lambda: "")
        assert (gateway.process.pid, gateway.process.ended) == (process, None), gateway.process.log_tail()
        assert gateway.process.get("/healthz")[0] == 200
        ballast.unlink()
        gateway.send(*SAMPLE[100:150])
        wait_until(reserve.exists, gateway.process.log_tail)
        wait_until(lambda: gateway.texts().total() >= gateway.accepted() >= 100, gateway.process.log_tail)
        assert gateway.texts().keys() >= {f"<14>{line}" for line in (*SAMPLE[:50], *SAMPLE[100:150])}
        assert gateway.process.stop()[0] == 0


def test_a_start_on_a_full_disk_is_refused_in_words_and_succeeds_once_there_is_room(gateway: Gateway) -> None:
    ballast = gateway.state / "ballast"
    fill(ballast)
    gateway.process.start()
    assert gateway.process.wait(STARTS_WITHIN_S) == 1
    said = gateway.process.log_tail()
    assert "Traceback" not in said
    assert f"`state_dir` {gateway.state}: found 0 bytes free on its disk, wanted at least" in said
    os.truncate(ballast, 0)
    with running(gateway):
        gateway.send(*SAMPLE[:10])
        gateway.await_answers(10)
        assert gateway.process.stop()[0] == 0
