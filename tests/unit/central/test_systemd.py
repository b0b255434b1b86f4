import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

UNITS = sorted((Path(__file__).parents[3] / "central" / "systemd").glob("*.service"))


@pytest.mark.server("systemd-analyze")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_is_exposed_to_at_most_three_of_ten(unit: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    assert analyze is not None
    said = subprocess.run(
        [analyze, "security", "--offline=true", "--no-pager", str(unit)], capture_output=True, text=True, check=False
    )
    exposure = re.search(rf"Overall exposure level for {re.escape(unit.name)}: ([\d.]+)", said.stdout)
    assert exposure is not None, said.stderr
    assert float(exposure[1]) <= 3.0


@pytest.mark.server("systemd-analyze")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_understands_every_line_of_a_unit(unit: Path, tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    assert analyze is not None
    # The interpreter of an installed centre is not here; everything else must be as shipped.
    text, changed = re.subn(r"(?m)^ExecStart=\S+", f"ExecStart={sys.executable}", unit.read_text())
    assert changed == 1
    copy = tmp_path / unit.name
    copy.write_text(text)
    said = subprocess.run([analyze, "verify", "--man=no", str(copy)], capture_output=True, text=True, check=False)
    assert (said.returncode, said.stderr) == (0, "")


def test_every_process_of_the_centre_has_a_unit_and_what_runs_by_the_clock_a_timer() -> None:
    wanted = ["headwater-bridge", "headwater-compact", "headwater-deliver", "headwater-triage"]
    assert [unit.stem for unit in UNITS] == wanted
    assert [timer.stem for timer in UNITS[0].parent.glob("*.timer")] == ["headwater-compact"]
