"""The intake killed under load: what was committed is there once, and the file tail goes on where it stood."""

import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.real.intake import IntakeProcess, running, wait_until

_PACE_S = 0.003  # a load, not a flood


def sources(directory: Path) -> str:
    return (
        '[[sources]]\nkind = "syslog-tcp"\nname = "tcp"\nport = 0\n'
        f'[[sources]]\nkind = "file"\nname = "app"\npath = "{directory}/app.log"\npoll_interval_s = 0.01\n'
    )


class Stream:
    """Sends numbered lines for as long as the connection lasts."""

    def __init__(self, port: int, name: str) -> None:
        self._connection = socket.create_connection(("127.0.0.1", port))
        self._name = name
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        self._connection.close()

    def _send(self) -> None:
        number = 0
        while not self._ended.is_set():
            lines = b"".join(b"<13>%s %d\n" % (self._name.encode(), number + n) for n in range(20))
            number += 20
            try:
                self._connection.sendall(lines)
            except OSError:
                return
            time.sleep(_PACE_S)


def kill_under_load(directory: Path, kills: int, progress: Callable[[str], None]) -> None:
    intake = IntakeProcess(directory, sources(directory), spool_max_bytes=4 << 30)  # nobody trims here
    log = directory / "app.log"
    written = 0
    events = 0
    ended = threading.Event()

    def write() -> None:
        nonlocal written
        with log.open("a") as file:
            while not ended.is_set():
                file.write("".join(f"line {written + n}\n" for n in range(50)))
                file.flush()
                written += 50
                time.sleep(_PACE_S)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    for number in range(kills):
        progress(f"kill {number} of {kills}; {written} lines, {events} events")
        with running(intake):
            stream = Stream(intake.ports["tcp"], f"round-{number}")
            intake.wait_for_events(events + 500)
            time.sleep(random.random() * 0.2)  # the moment of the kill is the experiment
            intake.kill()
            stream.close()
        events = intake.events()
    ended.set()
    writer.join()
    with running(intake):
        wait_until(lambda: intake.status().counters.events.get("app", 0) >= written, "the rest of the file", 60)
        assert intake.stop() == 0

    arrivals = intake.arrivals()
    assert sum(len(arrival.records) for arrival in arrivals) == intake.events()
    from_file = [record for arrival in arrivals if arrival.source == "app" for record in arrival.records]
    assert from_file == [b"line %d" % n for n in range(written)]
    from_stream = [record for arrival in arrivals if arrival.source == "tcp" for record in arrival.records]
    for number in range(kills):
        prefix = b"<13>round-%d " % number
        numbers = [int(record[len(prefix) :]) for record in from_stream if record.startswith(prefix)]
        assert numbers == list(range(len(numbers)))
    ids = Counter(f"{a.origin}.{position}" for a in arrivals for position in a.positions)
    assert max(ids.values()) == 1


def test_kills_under_load_lose_nothing_that_was_committed_and_repeat_nothing(
    tmp_path: Path, progress: Callable[[str], None]
) -> None:
    kill_under_load(tmp_path, 4, progress)


@pytest.mark.slow
def test_a_hundred_kills_under_load_lose_nothing_that_was_committed_and_repeat_nothing(
    tmp_path: Path, progress: Callable[[str], None]
) -> None:
    kill_under_load(tmp_path, 100, progress)


def test_a_kill_leaves_a_spool_that_opens_and_ports_that_are_free(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    intake = IntakeProcess(tmp_path, f'[[sources]]\nkind = "syslog-tcp"\nname = "tcp"\nport = {port}\n')
    for number in range(3):
        with running(intake), socket.create_connection(("127.0.0.1", port)) as stream:
            stream.sendall(b"<13>%d\n" % number)
            intake.wait_for_events(number + 1)
            intake.kill()
    assert intake.records() == [b"<13>%d" % number for number in range(3)]
