"""llama.cpp's own source, as `./just setup` unpacked it for compiling: its vocabularies, and its server, built once."""

import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.once import once

ROOT = Path(__file__).parent.parent
BUILD = ROOT / "build"
WITHOUT_AMX = "-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"  # the same as our own llama.cpp is built with


def source() -> Path:
    """Return the folder of llama.cpp's source.

    Raises:
        FileNotFoundError: it is not there, with what to do.
    """
    folder = BUILD / f"llama-cpp-{version('llama-cpp-python')}" / "source" / "vendor" / "llama.cpp"
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not there; `./just setup` puts it there")
    return folder


def vocabulary_file(name: str) -> Path:
    """Return a vocabulary without weights, as a GGUF."""
    return source() / "models" / f"ggml-vocab-{name}.gguf"


def server() -> Path:
    """Return llama.cpp's server, built from the same source with the same flags; the first time takes minutes."""
    return once(BUILD / f"llama-server-{version('llama-cpp-python')}" / "bin" / "llama-server", _build_server)


def _build_server(program: Path) -> None:
    """Build it in a folder that goes away, and put the program where it is wanted."""
    print("building llama-server, once; this takes some minutes …", file=sys.stderr)
    is_x86 = os.uname().machine == "x86_64"
    flags = [f"-DCMAKE_C_FLAGS={WITHOUT_AMX}", f"-DCMAKE_CXX_FLAGS={WITHOUT_AMX}"] if is_x86 else []
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    with TemporaryDirectory(prefix="llama-server-", dir=BUILD) as folder:
        configure = [
            "cmake", "-S", str(source()), "-B", folder, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release",
            "-DGGML_NATIVE=ON", "-DBUILD_SHARED_LIBS=OFF", "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF",
            "-DLLAMA_BUILD_APP=OFF", "-DLLAMA_OPENSSL=OFF", "-DLLAMA_USE_PREBUILT_UI=OFF", *flags,
        ]  # fmt: skip
        for command in (configure, ["cmake", "--build", folder, "--target", "llama-server"]):
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"`{' '.join(command[:3])}` failed: {(done.stdout + done.stderr)[-2000:]}")
        shutil.copy2(Path(folder) / "bin" / "llama-server", program)
