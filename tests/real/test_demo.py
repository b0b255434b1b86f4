"""The demo as a user runs it."""

import re
import subprocess
import sys
from pathlib import Path
from time import monotonic

import pytest

from edge.demo import EVENTS


@pytest.mark.slow
@pytest.mark.server("mosquitto")
def test_the_demo_ends_within_a_minute_with_every_event_answered() -> None:
    began = monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "edge", "demo"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    counts = re.fullmatch(r"(\d+) events in, (\d+) verdicts out, 0 lost", done.stdout.splitlines()[-1])
    assert counts is not None, done.stdout
    assert done.returncode == 0, done.stdout
    assert int(counts[1]) == int(counts[2]) == EVENTS
    assert monotonic() - began < 60
