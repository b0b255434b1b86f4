"""A real vLLM server on loopback, for demo and tests: on the CPU, in an environment of its own, killed at will."""

import os
import signal
import subprocess
from pathlib import Path
from time import monotonic, sleep
from urllib.error import URLError
from urllib.request import urlopen

from dataflows.running.child import free_port
from models.contracts.errors import UnavailableError

_ROOT = Path(__file__).parent.parent
_PYTHON = _ROOT / "build" / "vllm" / "bin" / "python"
_READY_WITHIN_S = 900.0  # half a minute on a machine that does nothing else, and five where everything waits
_STOPS_WITHIN_S = 20.0
_LOOK_EVERY_S = 0.5

# One thread, bound to nothing: two wait for each other at every step, for ever where somebody else wants their core.
_ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}


def missing() -> str:
    """Say what is missing to run one; empty where nothing is."""
    return "" if _PYTHON.exists() else f"{_PYTHON} is not there; `./just vllm` makes its environment: six gigabytes"


class LocalVllm:
    """One server of one checkpoint, on a port that it keeps over restarts."""

    def __init__(
        self, directory: Path, checkpoint: Path, *, context_tokens: int = 1024, dtype: str = "float32"
    ) -> None:
        """Describe it; nothing is started.

        It computes with 32 bits, whatever the checkpoint has: without instructions for 16 a processor takes four times
        as long with them.
        """
        directory.mkdir(parents=True, exist_ok=True)
        self._log = directory / "vllm.log"
        self._checkpoint, self._context_tokens, self._dtype = checkpoint, context_tokens, dtype
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Return when the server answers.

        Raises:
            UnavailableError: there is no environment to run it in, it ended, or it does not answer in time.
        """
        if missing():
            raise UnavailableError(missing())
        command = [str(_PYTHON), "-m", "vllm.entrypoints.openai.api_server", "--model", str(self._checkpoint)]
        command += ["--served-model-name", self._checkpoint.name, "--host", "127.0.0.1", "--port", str(self._port)]
        command += ["--max-model-len", str(self._context_tokens), "--dtype", self._dtype, "--max-num-seqs", "64"]
        command += ["--enforce-eager", "--enable-tokenizer-info-endpoint", "--disable-uvicorn-access-log"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                env={**os.environ, **_ENVIRONMENT},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # its engine is a process of its own, and is to end with it however it ends
            )
        deadline = monotonic() + _READY_WITHIN_S
        while not self._answers():
            if self._process.poll() is not None:
                raise UnavailableError(f"vLLM ended with {self._process.returncode}:\n{self.log_tail()}")
            if monotonic() > deadline:
                self.stop(signal.SIGKILL)
                raise UnavailableError(f"vLLM does not answer within {_READY_WITHIN_S:g} s:\n{self.log_tail()}")
            sleep(_LOOK_EVERY_S)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it, if it runs; with SIGKILL as a crash would."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            os.killpg(process.pid, number)
            try:
                process.wait(_STOPS_WITHIN_S)
            except subprocess.TimeoutExpired:  # one that is still starting takes its time
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def kill(self) -> None:
        self.stop(signal.SIGKILL)

    def hang(self) -> None:
        """Stop its process where it stands: connections are taken and nothing is said."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on from there."""
        self._signal(signal.SIGCONT)

    def log_tail(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-20:])

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, number)

    def _answers(self) -> bool:
        try:
            with urlopen(f"{self.url}/health", timeout=5) as answer:  # noqa: S310 # loopback
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False
