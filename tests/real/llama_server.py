"""llama.cpp's own server on loopback: compiled once from the very source that `./just setup` unpacked."""

import importlib.util
import os
import shlex
import signal
import socket
import subprocess
from pathlib import Path
from time import monotonic, sleep
from types import ModuleType
from urllib.error import URLError
from urllib.request import urlopen

ROOT = Path(__file__).parents[2]
PLACE = ROOT / "build" / "llama-server"
COMPILED_WITHIN_S = 3600
READY_WITHIN_S = 120.0
STOPS_WITHIN_S = 30.0
LEFT_OUT = ("TESTS", "EXAMPLES", "APP", "UI")


def binary(source: Path) -> Path:
    """Return the server for this processor; the first time it is compiled, which takes minutes."""
    install = _install()
    compiler = install.find_compiler()
    flags = shlex.join(install.WITHOUT_AMX) if install.accepts(compiler, install.WITHOUT_AMX) else ""
    options = ["-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON", "-DBUILD_SHARED_LIBS=OFF", "-DLLAMA_OPENSSL=OFF"]
    options += ["-DLLAMA_BUILD_SERVER=ON", "-DLLAMA_BUILD_TOOLS=ON", "-DLLAMA_USE_PREBUILT_UI=OFF"]
    options += [f"-DLLAMA_BUILD_{part}=OFF" for part in LEFT_OUT]
    options += [f"-DCMAKE_C_FLAGS={flags}", f"-DCMAKE_CXX_FLAGS={flags}"]
    place = PLACE / install.build_key(source.parent.name, " ".join(options), compiler)
    server = place / "bin" / "llama-server"
    if not server.exists():
        place.mkdir(parents=True, exist_ok=True)
        with (place / "build.log").open("wb") as log:
            for command in (
                ["cmake", "-S", str(source / "vendor" / "llama.cpp"), "-B", str(place), "-G", "Ninja", *options],
                ["cmake", "--build", str(place), "--target", "llama-server"],
            ):
                subprocess.run(command, check=True, stdout=log, stderr=log, timeout=COMPILED_WITHIN_S)
    return server


class LlamaServer:
    """One server of one GGUF, on a port that it keeps over restarts."""

    def __init__(self, directory: Path, program: Path, model: Path, *, context_tokens: int = 1024) -> None:
        self._log = directory / "llama-server.log"
        self._program, self._model, self._context_tokens = program, model, context_tokens
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


def _install() -> ModuleType:
    """The set-up's script, which knows the compiler and its flags."""
    spec = importlib.util.spec_from_file_location("install", ROOT / "requirements" / "install.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
