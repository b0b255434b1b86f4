"""A Hugging Face checkpoint to a 16-bit GGUF, by llama.cpp's own converter; and a check that it says the same.

The converter comes with the source of llama-cpp-python that `./just setup` fetched by its hash and compiled, so that
what writes a file and what reads it are of one version.
"""

import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from models.contracts.errors import ConfigError, InputError
from quantize.steps import told_by_the_system

ROOT = Path(__file__).parent.parent
_LAST_WORDS = 4  # lines
_TIMEOUT_S = 3_600.0


def llama_cpp_source() -> Path:
    """Return the folder of llama.cpp's source.

    Raises:
        ConfigError: it is not there, with what to do.
    """
    folder = ROOT / "build" / f"llama-cpp-{version('llama-cpp-python')}" / "source" / "vendor" / "llama.cpp"
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not there; `./just setup` puts it there")
    return folder


def convert(checkpoint: Path, target: Path) -> None:
    """Write `checkpoint` as a 16-bit GGUF; `target` appears whole or not at all.

    Raises:
        InputError: llama.cpp does not know the architecture, or the folder is incomplete.
        OSError: there is no room for it.
    """
    unfinished = target.with_name(target.name + ".unfinished")
    command = [sys.executable, "-m", "quantize.llama_convert", str(llama_cpp_source()), str(checkpoint.absolute())]
    try:
        with told_by_the_system(target.parent):
            done = subprocess.run(
                [*command, str(unfinished.absolute())],
                cwd=ROOT, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S,
            )  # fmt: skip
            if done.returncode or not unfinished.is_file():
                said = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
                raise InputError(f"{checkpoint}: llama.cpp does not convert it: {_reason(said)}")
        unfinished.rename(target)
    except subprocess.TimeoutExpired as error:
        raise InputError(f"{checkpoint}: the conversion took more than {_TIMEOUT_S:g} s; stopped it") from error
    finally:
        unfinished.unlink(missing_ok=True)


def _reason(said: Sequence[str]) -> str:
    return " | ".join(line.strip()[:200] for line in said[-_LAST_WORDS:]) or "it gave no reason"
