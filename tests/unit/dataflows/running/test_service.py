"""How a flow's process ends, by what ended it."""

import subprocess
import sys
from pathlib import Path

import pytest

_FLOW = """
import sys
from datetime import timedelta
from pathlib import Path
from threading import Event

from bytewax import operators as op
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, TestingSource

from dataflows.running.pulse import Pulse
from dataflows.running.recovery import run_options
from dataflows.running.service import Committing, Service
from models.contracts.errors import ConfigError

class Idle:
    def begin(self): pass
    def announcement(self): return ""
    def look(self): pass
    def reload(self): pass
    def let_go(self): pass
    def make_room(self): pass
    def settle(self): pass

def fail(_):
    raise {error}("found this, wanted that")

flow = Dataflow("failing")
op.output("out", op.map("fail", op.input("in", flow, TestingSource([1])), fail), TestingSink([]))
committing = Committing.to(Path(sys.argv[1]), timedelta(seconds=1), run_options([], {{}}))
sys.exit(Service(Idle(), Event(), Pulse()).run(flow, committing))
"""


@pytest.mark.parametrize(("error", "code"), [("ConfigError", 2), ("ValueError", 1)])
def test_a_flow_that_cannot_go_on_as_configured_is_not_to_be_started_again(
    error: str, code: int, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", _FLOW.format(error=error), str(tmp_path / "recovery")]

    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == code, done.stderr
    assert f"{error}: found this, wanted that" in done.stdout + done.stderr
