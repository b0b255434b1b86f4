"""A real mosquitto on loopback for as long as a demo, a direct child."""

import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

from dataflows.running.child import free_port
from models.contracts.errors import UnavailableError

_ANSWERS_WITHIN_S = 10.0
_STOPS_WITHIN_S = 10.0
_CONFIG = """
listener {port} 127.0.0.1
allow_anonymous true
max_queued_messages 0
set_tcp_nodelay true
"""


def program() -> str:
    """Return where mosquitto is; nothing where none is installed."""
    # Debian puts it where only root's path leads.
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin") or ""


class LocalMosquitto:
    """One broker, which keeps nothing over its end."""

    def __init__(self, directory: Path, port: int = 0) -> None:
        """Write its configuration; port 0 is a free one."""
        self.port = port or free_port()
        self._directory = directory
        self._config = directory / "mosquitto.conf"
        self._config.write_text(_CONFIG.format(port=self.port))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Return when it answers.

        Raises:
            UnavailableError: it does not.
        """
        with (self._directory / "mosquitto.log").open("ab") as log:
            self._process = subprocess.Popen(
                [program(), "-c", str(self._config)], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        deadline = monotonic() + _ANSWERS_WITHIN_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError as error:
                if self._process.poll() is not None or monotonic() > deadline:
                    raise UnavailableError(
                        f"mosquitto on port {self.port}: does not answer: {error}; see its log"
                    ) from error
                sleep(0.02)
            else:
                return

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it, if it runs; with SIGKILL as a crash would."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.send_signal(number)
            process.wait(_STOPS_WITHIN_S)

    def kill(self) -> None:
        self.stop(signal.SIGKILL)


@contextmanager
def mosquitto(directory: Path) -> Iterator[int]:
    """Run a broker for as long as the demo; yield its port, or 0 where none is installed."""
    if not program():
        yield 0
        return
    broker = LocalMosquitto(directory)
    broker.start()
    try:
        yield broker.port
    finally:
        broker.stop()
