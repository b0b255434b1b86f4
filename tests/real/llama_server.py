"""llama.cpp's own server on loopback, compiled once from the source that `./just setup` unpacked; killed at will."""

import os
import signal
import socket
import subprocess
from pathlib import Path
from time import monotonic, sleep
from urllib.error import URLError
from urllib.request import urlopen

from bench import vendored

READY_WITHIN_S = 120.0
STOPS_WITHIN_S = 30.0


class LlamaServer:
    """One server of one GGUF, on a port that it keeps over restarts."""

    def __init__(self, directory: Path, model: Path, *, context_tokens: int = 1024) -> None:
        """Have the program compiled the first time, which takes minutes."""
        self._log = directory / "llama-server.log"
        self._program = vendored.server()
        self._model, self._context_tokens = model, context_tokens
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = int(probe.getsockname()[1])
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        slots = 8
        command = [str(self._program), "-m", str(self._model), "--host", "127.0.0.1", "--port", str(self._port)]
        command += ["-np", str(slots), "-c", str(slots * self._context_tokens), "-t", "1"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = monotonic() + READY_WITHIN_S
        while not self._answers():
            assert self.runs, self._log.read_text(errors="replace")[-2000:]
            assert monotonic() < deadline, f"llama-server does not answer within {READY_WITHIN_S:g} s"
            sleep(0.1)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it, if it runs; with SIGKILL as a crash would."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.send_signal(number)
            process.wait(STOPS_WITHIN_S)

    def kill(self) -> None:
        self.stop(signal.SIGKILL)

    def hang(self) -> None:
        """Stop its process where it stands: connections are taken and nothing is said."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on from there."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def _answers(self) -> bool:
        try:
            with urlopen(f"{self.url}/health", timeout=5) as answer:  # noqa: S310 # loopback
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False
