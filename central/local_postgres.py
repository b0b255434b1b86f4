"""A real PostgreSQL on loopback, for tests: a direct child with a folder of its own, killed at will."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from dataflows.running.child import free_port
from models.contracts.errors import UnavailableError

_DEBIAN = Path("/usr/lib/postgresql")  # a folder for each version; none of them is on the path
_SERVER_USER = "postgres"
_READY_WITHIN_S = 60.0
_STOPS_WITHIN_S = 30.0
_LOOK_EVERY_S = 0.1


def missing() -> str:
    """Say what of this machine's is missing to run a server; empty where nothing is."""
    return "" if _programs() else "PostgreSQL is not installed; on Debian: apt-get install postgresql"


class LocalPostgres:
    """One server, with its data in a temporary folder; what was committed survives SIGTERM and SIGKILL."""

    def __init__(self) -> None:
        """Make the folder, and an empty cluster in it.

        Raises:
            UnavailableError: there is no PostgreSQL here, or it cannot do that.
        """
        programs = _programs()
        if programs is None:
            raise UnavailableError(missing())
        self._programs = programs
        self._directory = Path(tempfile.mkdtemp(prefix="headwater-postgres-"))
        # It refuses to run as root; and what it runs as instead has to own the folder.
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            shutil.chown(self._directory, _SERVER_USER, _SERVER_USER)
            self._as = {"user": _SERVER_USER, "group": pwd.getpwnam(_SERVER_USER).pw_gid, "extra_groups": []}
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        command = ["initdb", "-D", self._data, "-U", "headwater", "-A", "trust", "--no-sync", "--locale=C.UTF-8"]
        if self._start([*command, "-E", "UTF8"]).wait(_READY_WITHIN_S):
            failed = f"initdb failed:\n{self.log_tail()}"
            self.remove()
            raise UnavailableError(failed)

    @property
    def url(self) -> str:
        """For SQLAlchemy: the database that every cluster has."""
        return f"postgresql+psycopg://headwater@127.0.0.1:{self.port}/postgres"

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Return when the server takes connections.

        Raises:
            UnavailableError: it takes none in time.
        """
        settings = ["listen_addresses=127.0.0.1", f"port={self.port}", "unix_socket_directories="]
        command = ["postgres", "-D", self._data, *(word for setting in settings for word in ("-c", setting))]
        ask = [str(self._programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        deadline = monotonic() + _READY_WITHIN_S
        while True:
            # The children of one that was killed live a little longer, and keep a new one from starting.
            if not self.runs:
                self._process = self._start(command)
            if not subprocess.run(ask, check=False, timeout=_READY_WITHIN_S).returncode and self.runs:
                return
            if monotonic() > deadline:
                raise UnavailableError(f"PostgreSQL is not ready within {_READY_WITHIN_S:g} s:\n{self.log_tail()}")
            sleep(_LOOK_EVERY_S)

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """End it, if it runs: at once and orderly, or with SIGKILL as a crash would."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.send_signal(number)
            process.wait(_STOPS_WITHIN_S)

    def remove(self) -> None:
        """End it, and delete all that it had."""
        self.stop()
        shutil.rmtree(self._directory, ignore_errors=True)

    def log_tail(self) -> str:
        lines = (self._directory / "postgres.log").read_text(errors="replace").splitlines()
        return "\n".join(lines[-20:])

    @property
    def _data(self) -> str:
        return str(self._directory / "data")

    def _start(self, command: list[str]) -> "subprocess.Popen[bytes]":
        program = str(self._programs / command[0])
        with (self._directory / "postgres.log").open("ab") as log:
            return subprocess.Popen(
                [program, *command[1:]],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._directory,
                **self._as,
            )


def _programs() -> Path | None:
    """Return where the programs of the newest version are."""
    versions = [path for path in _DEBIAN.glob("*/bin") if (path / "postgres").exists()]
    on_path = shutil.which("initdb")
    if versions:
        return max(versions, key=lambda path: float(path.parent.name))
    return Path(on_path).resolve().parent if on_path else None
