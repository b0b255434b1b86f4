"""A real gateway that a test may hurt, the events it was given, and what became of each."""

import json
import socket
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from time import monotonic, sleep

import psutil

from dataflows.connectors.spool import SpoolReader
from dataflows.running.child import free_port
from dataflows.running.harvest import Harvest
from edge.gateway_process import GatewayProcess

# Two on a quiet machine. What is promised of a start is not its speed: two cores may be anybody else's.
STARTS_WITHIN_S = 240.0

# The beginnings of the shipped lines, each of them once: what is tested here is not the model.
SAMPLE = [
    f"{number} {line[:50]}"
    for number, line in enumerate(
        (Path(__file__).parents[2] / "edge" / "sample.log").read_text(encoding="utf-8").splitlines()
    )
]


class Gateway:
    """One configuration in a directory of its own; `sources` and `outputs` are TOML, with ports from `free_port`."""

    def __init__(
        self,
        directory: Path,
        model: Path,
        sources: str = "",
        *,
        outputs: str = "",
        more_model: str = "",
        more: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.tcp = free_port()
        self.state = directory / "state"
        self.output = directory / "out" / "verdicts.jsonl"
        self.output.parent.mkdir(exist_ok=True)
        operations = free_port()
        config = directory / "edge.toml"
        config.write_text(
            f"""{more}
[gateway]
state_dir = "{self.state}"
epoch_ms = 200
[model]
release = "{model}"
{more_model}
[operations]
port = {operations}
[[sources]]
kind = "syslog-tcp"
name = "tcp"
port = {self.tcp}
{sources}
[[outputs]]
kind = "json-lines"
name = "verdicts"
path = "{self.output}"
{outputs}
"""
        )
        self.process = GatewayProcess(config, operations, environment=environment)
        self.harvest = Harvest(self.output)
        self._texts: dict[str, Counter[str]] = defaultdict(Counter)  # by source, of as many verdicts as were counted
        self._counted = 0

    def start(self) -> None:
        self.process.start()
        self.await_ready()

    def await_ready(self) -> None:
        """Wait until it is ready, however busy the machine is."""
        self.process.wait_until_ready(STARTS_WITHIN_S)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.tcp), timeout=10)

    def send(self, *lines: str) -> None:
        """Send over a connection of its own, and return when the gateway has read all of it."""
        with self.connect() as sock:
            sock.sendall("".join(f"<14>{line}\n" for line in lines).encode())
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(4096):
                pass

    def accepted(self, source: str = "tcp") -> int:
        """Return how many events of a source were committed to the spool, since it was made."""
        reader = SpoolReader(self.state / "spool.sqlite3")
        try:
            return reader.status().counters.events.get(source, 0)
        finally:
            reader.close()

    def texts(self, source: str = "tcp") -> Counter[str]:
        """Return how many verdicts with an id of their own each text of a source has by now."""
        self.harvest.gather()
        for verdict in islice(self.harvest.verdicts.values(), self._counted, None):
            self._texts[verdict.source][verdict.text] += 1
        self._counted = len(self.harvest.verdicts)
        return self._texts[source].copy()

    def buried(self, source: str = "tcp") -> dict[str, str]:
        """Return the reasons of the dead letters of a source by their ids, which drops repeats."""
        path = self.state / "dead-letters.jsonl"
        content = path.read_bytes() if path.exists() else b""
        letters = [json.loads(line) for line in content[: content.rfind(b"\n") + 1].splitlines()]
        return {letter["id"]: letter["reason"] for letter in letters if letter["source"] == source}

    def await_answers(self, count: int, source: str = "tcp", stalled_s: float = 60.0) -> Counter[str]:
        """Wait until that many events of a source have a verdict or a dead letter; return the verdicts' texts.

        That may take as long as there is something to do; it may not stand still for `stalled_s`.
        """
        answered, moved_at = -1, monotonic()
        while answered < count:
            before, answered = answered, self.texts(source).total() + len(self.buried(source))
            if answered > before:
                moved_at = monotonic()
            assert monotonic() < moved_at + stalled_s, f"{answered} of {count} answered\n{self.process.log_tail()}"
            sleep(0.02)
        return self.texts(source)


def kill_intake(gateway: Gateway) -> None:
    """Kill the process that listens for a gateway, where it has one by now."""
    for child in psutil.Process(gateway.process.pid).children():
        if "edge.intake" in child.cmdline():
            child.kill()


@contextmanager
def running(gateway: Gateway) -> Iterator[Gateway]:
    """Start it, and leave nothing of it behind."""
    gateway.process.start()
    try:
        gateway.await_ready()
        yield gateway
    finally:
        gateway.process.kill()


def wait_until(true: Callable[[], object], else_say: Callable[[], str], within_s: float = 30.0) -> None:
    """Poll until something holds, for so long at the most."""
    deadline = monotonic() + within_s
    while not true():
        assert monotonic() < deadline, else_say()
        sleep(0.02)
