"""The intake as the gateway runs it: a process of its own, on a lifeline."""

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from dataflows.connectors.spool import Arrival, SpoolReader, SpoolStatus
from models.contracts.errors import UnavailableError

READY_WITHIN_S = 30.0  # of a loaded machine; on a quiet one it takes half a second


def wait_until(true: Callable[[], Any], what: str, within_s: float = 30.0) -> Any:
    """Poll until something holds, and return it."""
    deadline = time.monotonic() + within_s
    while not (found := true()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {within_s} s")
        time.sleep(0.005)
    return found


class IntakeProcess:
    """Started, stopped and killed; its spool read as the flow reads it."""

    def __init__(self, directory: Path, sources: str, spool_max_bytes: int = 64 << 20) -> None:
        self.directory = directory
        self.state = directory / "state"
        self.config = directory / "edge.toml"
        self.log = directory / "intake.log"
        self.config.write_text(
            f'[gateway]\nname = "gw"\nstate_dir = "{self.state}"\n[spool]\nmax_bytes = {spool_max_bytes}\n{sources}'
        )
        self.process: subprocess.Popen[bytes] | None = None
        self.ports: dict[str, int] = {}

    def start(self, stdin: int | None = subprocess.DEVNULL) -> dict[str, Any]:
        read_end, self._lifeline = os.pipe()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "edge.intake", str(self.config), "--lifeline", str(read_end)],
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=log,
                pass_fds=(read_end,),
            )
        os.close(read_end)
        assert self.process.stdout is not None
        with self.process.stdout:
            announced: dict[str, Any] = json.loads(self.process.stdout.readline())
        self.ports = announced.get("listening", {})
        return announced

    def stop(self) -> int:
        """End the lifeline."""
        assert self.process is not None
        with suppress(OSError):
            os.close(self._lifeline)
        return self.process.wait(READY_WITHIN_S)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        os.close(self._lifeline)

    def status(self) -> SpoolStatus:
        reader = SpoolReader(self.state / "spool.sqlite3")
        try:
            return reader.status()
        finally:
            reader.close()

    def events(self) -> int:
        try:
            return sum(self.status().counters.events.values())
        except UnavailableError:
            return 0

    def mark(self, source: str) -> bytes | None:
        """What a source has in the spool to go on from."""
        with closing(sqlite3.connect(self.state / "spool.sqlite3")) as spool:
            row = spool.execute("SELECT value FROM marks WHERE source = ?", (source,)).fetchone()
        return None if row is None else bytes(row[0])

    def wait_for_events(self, count: int) -> None:
        wait_until(lambda: self.events() >= count, f"{count} events in the spool")

    def arrivals(self) -> list[Arrival]:
        reader = SpoolReader(self.state / "spool.sqlite3")
        try:
            found: list[Arrival] = []
            seq = 0
            while rows := reader.read(seq, 1000):
                found.extend(row.arrival for row in rows)
                seq = rows[-1].seq + 1
            return found
        finally:
            reader.close()

    def records(self) -> list[bytes]:
        return [record for arrival in self.arrivals() for record in arrival.records]


@contextmanager
def running(intake: IntakeProcess) -> Iterator[IntakeProcess]:
    """Start it, and leave nothing behind."""
    try:
        announced = intake.start()
        assert announced["ready"], announced
        yield intake
    finally:
        if intake.process is not None and intake.process.poll() is None:
            intake.kill()
