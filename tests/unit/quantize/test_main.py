"""The command itself: from where it is called, and what it says before it has begun."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from quantize.main import cli

ROOT = Path(__file__).parents[3]
INTERRUPTED_WHILE_LOADING = """
import runpy, signal, sys
sys.addaudithook(lambda event, names: event == "import" and names[0] == "numpy" and signal.raise_signal(signal.SIGINT))
runpy.run_module("quantize", run_name="__main__", alter_sys=True)
"""


def test_an_interrupt_while_modules_are_loaded_is_one_word_and_its_exit_code() -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_WHILE_LOADING], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (130, "quantize: interrupted\n")


@pytest.mark.parametrize("command", [[], ["run"], ["measure"], ["compare"], ["label"]])
def test_help_has_a_short_name(command: list[str]) -> None:
    assert CliRunner().invoke(cli, [*command, "-h"]).output == CliRunner().invoke(cli, [*command, "--help"]).output


@pytest.mark.parametrize(("arguments", "recipe"), [(["mine.toml", "--out", "x"], "mine.toml"), ([], None)])
def test_a_release_is_made_from_where_it_is_called(tmp_path: Path, arguments: list[str], recipe: str | None) -> None:
    checkout, elsewhere = tmp_path / "check out", tmp_path / "elsewhere"
    python = checkout / "build" / "training" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "$PWD" "$@"\n')  # in place of gigabytes
    python.chmod(0o755)
    elsewhere.mkdir()
    shutil.copy(ROOT / "Justfile", checkout)
    done = subprocess.run(
        [Path(sys.executable).with_name("just"), "--justfile", checkout / "Justfile", "quantize", *arguments],
        cwd=elsewhere, capture_output=True, text=True, check=False,
    )  # fmt: skip

    called = recipe or f"{checkout}/recipes/soc-triage.toml"
    assert done.stdout.splitlines() == [
        f"{checkout} requirements/install.py training quantize.txt",
        " ".join([f"{elsewhere} -m quantize run", called, *arguments[1:]]),
    ]
