import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import absent
from tests.fakes.tiny_models import tiny_decoder
from tests.unit.edge.without_writable_code import NO_SECCOMP

UNIT = Path(__file__).parents[3] / "edge" / "systemd" / "headwater-edge.service"
CONFINED = Path(__file__).with_name("without_writable_code.py")


@pytest.mark.server("systemd-analyze")
def test_the_unit_is_exposed_to_at_most_three_of_ten() -> None:
    analyze = shutil.which("systemd-analyze")
    assert analyze is not None
    said = subprocess.run(
        [analyze, "security", "--offline=true", "--no-pager", str(UNIT)], capture_output=True, text=True, check=False
    )
    exposure = re.search(r"Overall exposure level for headwater-edge\.service: ([\d.]+)", said.stdout)
    assert exposure is not None, said.stderr
    assert float(exposure[1]) <= 3.0


@pytest.mark.server("systemd-analyze")
def test_systemd_understands_every_line_of_the_unit(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    assert analyze is not None
    # The interpreter of an installed gateway is not here; everything else must be as shipped.
    text, changed = re.subn(r"(?m)^ExecStart=\S+", f"ExecStart={sys.executable}", UNIT.read_text())
    assert changed == 1
    copy = tmp_path / UNIT.name
    copy.write_text(text)
    said = subprocess.run([analyze, "verify", "--man=no", str(copy)], capture_output=True, text=True, check=False)
    assert (said.returncode, said.stderr) == (0, "")


def test_nothing_we_load_needs_memory_that_is_both_written_and_run(tmp_path: Path) -> None:
    model = tiny_decoder(tmp_path / "tiny.gguf")
    done = subprocess.run(
        [sys.executable, CONFINED, "-m", "edge", "classify", "--release", str(model), "-"],
        input=b"hello\n",
        capture_output=True,
        cwd=UNIT.parents[2],
        check=False,
    )
    if done.returncode == NO_SECCOMP:
        absent(f"the kernel ({platform.release()}) takes no seccomp filter, by which memory is confined")
    assert (done.returncode, done.stderr, done.stdout.count(b"\n")) == (0, b"", 1)


def test_an_intake_whose_gateway_is_gone_is_asked_to_end_and_not_killed() -> None:
    assert "\nKillMode=control-group\n" in UNIT.read_text()
