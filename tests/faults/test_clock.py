"""The wall clock steps; the kernel's other clocks go on, as after a correction by NTP or by hand."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.faults.gateway import SAMPLE, Gateway, running

HOUR_S = 3600


class SteppingClock:
    """A wall clock for one gateway and its children: a shared object that adds to CLOCK_REALTIME and nothing else."""

    def __init__(self, directory: Path) -> None:
        compiler = shutil.which("cc")
        assert compiler is not None
        library, self._step = directory / "stepping_clock.so", directory / "step"
        source = Path(__file__).with_name("stepping_clock.c")
        subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
        self._step.write_bytes(bytes(8))
        self.environment = {"LD_PRELOAD": str(library), "STEPPING_CLOCK": str(self._step)}

    def step(self, seconds: int) -> None:
        with self._step.open("r+b") as file:  # in place: the gateway has it mapped
            file.write(seconds.to_bytes(8, "little", signed=True))


@pytest.mark.server("cc")
@pytest.mark.parametrize("step_s", [-HOUR_S, HOUR_S])
def test_events_go_on_being_answered_once_each_when_the_clock_steps(
    tmp_path: Path, quick_model: Path, step_s: int
) -> None:
    clock = SteppingClock(tmp_path)
    gateway = Gateway(tmp_path / "gw", quick_model, environment=clock.environment)
    with running(gateway):
        gateway.send(*SAMPLE[:50])
        gateway.await_answers(50)
        clock.step(step_s)
        gateway.send(*SAMPLE[50:100])
        gateway.await_answers(100, stalled_s=20)
        assert gateway.process.get("/readyz")[0] == 200
        assert gateway.process.stop()[0] == 0
    clock.step(2 * step_s)
    with running(gateway):
        gateway.send(*SAMPLE[100:150])
        texts = gateway.await_answers(150, stalled_s=20)
        assert gateway.process.stop()[0] == 0
    assert texts == {f"<14>{line}": 1 for line in SAMPLE[:150]}
    received = {verdict.text: verdict.received_at_ms for verdict in gateway.harvest.verdicts.values()}
    moved_s = (received[f"<14>{SAMPLE[99]}"] - received[f"<14>{SAMPLE[49]}"]) / 1000
    assert abs(moved_s - step_s) < 300, "the clock that was stepped is not the gateway's"
