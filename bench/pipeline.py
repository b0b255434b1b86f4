"""How fast the flow is with the model off: spool, flow and JSON lines on one core, as the gateway runs by default.

The spool is filled beforehand by the gateway's own intake, through a socket. Then the flow runs in a process that may
use one core only, its courier, its recovery store and its meters included. Every event is counted in the output.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from datetime import timedelta
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from threading import Event as Flag
from time import monotonic, perf_counter, process_time, sleep

from bytewax.run import cli_main

from bench.row import Row
from dataflows.cache.verdict_cache import VerdictCache
from dataflows.connectors.spool import SpoolReader
from dataflows.connectors.spool_source import SpoolSource
from dataflows.operators.repeats import Repeats
from dataflows.running.harvest import Harvest
from dataflows.running.meters import Meters
from dataflows.running.pulse import Pulse, PulsingSource
from dataflows.running.recovery import recovery_config
from dataflows.triage import triage
from edge.config import Config, Gateway, JsonLines, SyslogTcp
from edge.intake import Intake, spool_path
from edge.outputs import dead_letter_sink, outlets
from edge.readings import readings
from models.classifier import Classifier, Current
from models.contracts import wire
from models.contracts.opinion import Opinion
from models.contracts.policy import CacheRules, Policy
from models.contracts.release import Release
from models.contracts.task import Task
from models.header import split
from models.table import TableClassifier

_EVENTS = 400_000
ROOT = Path(__file__).parents[1]
_REAL_LINES = ROOT.parent / "shared" / "data" / "loghub"
_SAMPLE = ROOT / "edge" / "sample.log"
_TASK = ROOT / "models" / "tasks" / "soc-triage.toml"
_NOW_MS = 1_700_000_000_000  # stamps without a year are read as of then; no text depends on it
_TARGET = 100_000
_RUNS = 3
_FILL_S = 300.0


def rows() -> list[Row]:
    """Measure in children that are held on one core; the median, with the processor time said beside it."""
    runs = [measured(_EVENTS) for _ in range(_RUNS)]
    value = _EVENTS / median(run["wall_s"] for run in runs)
    used_us = median(run["cpu_s"] for run in runs) / _EVENTS * 1e6
    print(f"pipeline: {used_us:.1f} us of processor time an event", file=sys.stderr)
    return [Row(name="pipeline_events_per_s", value=value, unit="events/s", passed=value >= _TARGET)]


def measured(events: int) -> dict[str, float]:
    """Return the seconds that a flow takes for so many events, by the clock and of the processor."""
    with TemporaryDirectory(prefix="headwater-bench-") as folder:
        fill(config(Path(folder)), [b"".join(line + b"\n" for line in _records(events))])
        child = subprocess.run(
            [sys.executable, "-m", "bench.pipeline", folder], check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        harvest = Harvest(_output(Path(folder)))
        harvest.gather()
        if len(harvest.verdicts) != events:
            raise RuntimeError(f"bench: {events} events in, {len(harvest.verdicts)} verdicts out; the figure is none")
        seconds: dict[str, float] = json.loads(child.stdout.splitlines()[-1])
        return seconds


def config(folder: Path) -> Config:
    """Return the defaults, with one source and one output."""
    return Config(
        gateway=Gateway(state_dir=str(folder / "state")),
        sources=(SyslogTcp(name="bench", port=0),),
        outputs=(JsonLines(name="verdicts", path=str(_output(folder))),),
    )


def _output(folder: Path) -> Path:
    return folder / "verdicts.jsonl"


def _files() -> list[list[bytes]]:
    """Return the lines of each file in their order."""
    files = sorted(_REAL_LINES.glob("*.log")) or [_SAMPLE]
    return [[line for line in file.read_bytes().splitlines() if line.strip()] for file in files]


def _records(events: int) -> Iterator[bytes]:
    """Repeat each file's lines, one file after the other: as a source sends them."""
    files = _files()
    each = -(-events // len(files))
    return islice((line for lines in files for line in islice(cycle(lines), each)), events)


def _table() -> TableClassifier:
    """Know every line, so that an answer costs one look."""
    task = wire.decode_toml(_TASK.read_text(encoding="utf-8"), Task, str(_TASK))
    opinion = Opinion(probabilities=(0.9, 0.07, 0.03), label_mass=0.99)
    bodies = (split(line.decode("utf-8", "replace"), _NOW_MS).body for lines in _files() for line in lines)
    return TableClassifier(Release(name="table", number=1, task=task), dict.fromkeys(bodies, opinion))


def fill(gateway: Config, pieces: Iterable[bytes]) -> int:
    """Send lines through the door, so that the rows are those that a gateway has; return how many there were."""
    intake = Intake(gateway)
    intake.start()
    reader = SpoolReader(spool_path(gateway))
    events = 0
    try:
        with socket.create_connection(("127.0.0.1", intake.listening["bench"])) as sender:
            for piece in pieces:
                sender.sendall(piece)
                events += piece.count(b"\n")
        deadline = monotonic() + _FILL_S
        while (found := reader.status().counters.events.get("bench", 0)) < events:
            if monotonic() > deadline:
                raise RuntimeError(f"bench: {found} of {events} events in the spool after {_FILL_S:.0f} s")
            sleep(0.05)
    finally:
        reader.close()
        intake.stop()
    return events


def run(folder: Path, classifier: Classifier, policy: Policy, cache: VerdictCache) -> dict[str, float]:
    """Run the flow as the gateway lays it out, until the spool is empty; return its seconds by clock and processor."""
    gateway, stop, pulse = config(folder), Flag(), Pulse()
    meters = Meters(pulse.beat)
    letters = dead_letter_sink(gateway, stop, meters)
    events = gateway.model.batch_events
    flow = triage(
        PulsingSource(
            SpoolSource(
                spool_path(gateway), stop, batch_events=events, batch_s=gateway.model.batch_ms / 1e3, drain=True
            ),
            pulse,
        ),
        Current(classifier),
        Current(policy),
        outlets(gateway, {}, stop, meters, letters),
        letters,
        readings=readings(gateway),
        repeats=Repeats(window_events=gateway.repeats.window_events, window_s=gateway.repeats.window_s),
        cache=cache,
        window_events=events,
        wait=stop.wait,
        observer=meters,
    )
    recovery = recovery_config(folder / "recovery", timedelta(0))
    wall, cpu = perf_counter(), process_time()
    cli_main(flow, epoch_interval=timedelta(milliseconds=gateway.gateway.epoch_ms), recovery_config=recovery)
    return {"wall_s": perf_counter() - wall, "cpu_s": process_time() - cpu}


def on_one_core() -> None:
    """Hold this process, and what it starts, on one core."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


if __name__ == "__main__":
    if len(sys.argv) > 1:
        on_one_core()
        off = Policy(cache=CacheRules(enabled=False))  # a table is faster than any cache
        print(json.dumps(run(Path(sys.argv[1]), _table(), off, VerdictCache(b""))))
    else:
        print(wire.encode_lines(rows()).decode(), end="")
