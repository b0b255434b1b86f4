"""What all tests share: real servers are looked for by name, and so is the source of llama.cpp."""

import os
import shutil
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SYSTEM_PATH = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"  # Debian keeps its servers out of PATH


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("server"):
        (name,) = mark.args
        if shutil.which(name, path=SYSTEM_PATH) is None:
            absent(f"{name} is not installed; on Debian: apt-get install {name}")


@pytest.fixture(scope="session")
def llama_source() -> Path:
    """The unpacked source of llama-cpp-python, with llama.cpp's vocabularies, templates and tools under `vendor/`."""
    source = ROOT / "build" / f"llama-cpp-{version('llama-cpp-python')}" / "source"
    if not source.is_dir():
        absent(f"{source} is not there; `./just setup` compiles llama.cpp from it")
    return source


def absent(reason: str) -> None:
    """Skip by name on a developer's machine; in CI nothing may be missing."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
