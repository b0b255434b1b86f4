"""A real flow as a child process: started, asked, stopped, killed; for the demos, the fault tests and the benches."""

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from math import nan
from pathlib import Path
from time import monotonic, sleep

from models.contracts.errors import UnavailableError

_POLL_S = 0.02
_CHECKOUT = Path(__file__).parent.parent.parent  # the child runs beside its configuration, where no package lies
_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')

MetricKey = tuple[str, frozenset[tuple[str, str]]]


class FlowChild:
    """`python -m bytewax.run MODULE` beside its configuration; may be started again after it ended."""

    def __init__(
        self,
        module: str,
        config: Path,
        operations_port: int,
        *,
        log: Path | None = None,
        environment: Mapping[str, str] | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        self.config = config
        self.operations_port = operations_port
        self.log = log if log is not None else config.with_name(f"{module.rpartition('.')[2]}.log")
        self._module = module
        self._command = [sys.executable, "-m", "bytewax.run", module, *arguments]
        self._environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join((str(_CHECKOUT), os.environ.get("PYTHONPATH", ""))),
            "RUST_BACKTRACE": "0",
            **(environment or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; does not wait."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self.config.parent,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def pid(self) -> int:
        return self._running().pid

    @property
    def started(self) -> bool:
        """Whether it was ever started."""
        return self._process is not None

    @property
    def ended(self) -> int | None:
        """Its exit code, once it has one."""
        return self._running().poll()

    def wait_until_ready(self, within_s: float = 60.0) -> float:
        """Return how long it took.

        Raises:
            UnavailableError: it ended, or took too long; with the end of its log.
        """
        began = monotonic()
        while self.get("/readyz")[0] != http.client.OK:
            code = self.ended
            if code is not None or monotonic() - began > within_s:
                what = "took too long to start" if code is None else f"exited with {code}"
                self.kill()
                raise UnavailableError(f"{self._module} {what}; the end of its log:\n{self.log_tail()}")
            sleep(_POLL_S)
        return monotonic() - began

    def wait(self, within_s: float) -> int:
        """Return its exit code, once it ends by itself.

        Raises:
            UnavailableError: it goes on.
        """
        try:
            return self._running().wait(within_s)
        except subprocess.TimeoutExpired as error:
            raise UnavailableError(
                f"{self._module} {self.pid} still runs after {within_s:.0f} s:\n{self.log_tail()}"
            ) from error

    def stop(self, within_s: float = 10.0) -> tuple[int, float]:
        """Ask it to end; return its exit code and how long that took."""
        began = monotonic()
        self._running().send_signal(signal.SIGTERM)
        return self.wait(within_s), monotonic() - began

    def send(self, number: signal.Signals) -> None:
        self._running().send_signal(number)

    def kill(self) -> None:
        """End it as a power cut would end the process: no handler runs."""
        self._running().kill()
        self._running().wait()

    def get(self, path: str) -> tuple[int, str]:
        """Ask its operations server; status 0 where nobody answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.operations_port, timeout=5)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except (OSError, http.client.HTTPException):
            return 0, ""
        finally:
            connection.close()

    def metrics(self) -> dict[MetricKey, float]:
        """Return every figure of `/metrics` by its name and labels."""
        found: dict[MetricKey, float] = {}
        for line in self.get("/metrics")[1].splitlines():
            match = _SAMPLE.match(line)
            if match is not None:
                name, labels, value = match.groups()
                found[name, frozenset(_LABEL.findall(labels or ""))] = float(value)
        return found

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of a figure over all series that have these labels; NaN where there is none."""
        wanted = set(labels.items())
        values = [value for (found, has), value in self.metrics().items() if found == name and wanted <= has]
        return sum(values) if values else nan

    def log_tail(self, most_bytes: int = 4000) -> str:
        return self.log.read_bytes()[-most_bytes:].decode("utf-8", "replace") if self.log.exists() else ""

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError(f"{self._module} was never started")
        return self._process


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """Return a loopback port that was free a moment ago; a flow keeps its ports over restarts, so 0 will not do."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
