"""A real mosquitto on a free port, started and killed at will."""

import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

from tests.conftest import SYSTEM_PATH
from tests.real.intake import wait_until


class Mosquitto:
    """A direct child; its persistence survives SIGTERM, and SIGKILL as far as mosquitto's does."""

    def __init__(self, directory: Path, extra: str = "allow_anonymous true\n") -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "data").mkdir(exist_ok=True)
        self.port = _free_port()
        self.config = directory / "mosquitto.conf"
        # As root it would become another user, who may not read a private directory.
        user = "user root\n" if os.geteuid() == 0 else ""
        self.config.write_text(
            f"{user}listener {self.port} 127.0.0.1\npersistence true\npersistence_location {directory}/data/\n"
            f"autosave_interval 1\nmax_queued_messages 100000\nlog_dest stderr\n{extra}"
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        binary = shutil.which("mosquitto", path=SYSTEM_PATH)
        assert binary is not None
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen([binary, "-c", str(self.config)], stdout=log, stderr=log)
        wait_until(self._answers, "mosquitto")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            self._process.wait(30)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.directory / "log").read_text()
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as probe:
                # It listens before its loop runs, and forgets a SIGTERM that comes between.
                probe.sendall(b"no MQTT")
                probe.recv(1)
        except ConnectionResetError:
            return True
        except OSError:
            return False
        return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
