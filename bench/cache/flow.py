"""How fast the flow is with the verdict cache: spool, flow, model and JSON lines on one core, as the gateway runs.

The spool is filled beforehand by the gateway's own intake, through a socket. Then the flow runs in a process that may
use one core only, the model on one thread, its courier, its recovery store and its meters included, and begins with an
empty cache. Every event is counted in the output.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from datetime import timedelta
from functools import cache
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event as Flag
from time import monotonic, perf_counter, process_time, sleep

from bytewax.run import cli_main
from msgspec.structs import replace

from bench.cache.steps import WINDOW, events_of
from bench.cache.stream import Sizes, Stream
from bench.pipeline import ROOT, config
from bench.row import Row
from dataflows.cache.verdict_cache import VerdictCache
from dataflows.connectors.spool import SpoolReader
from dataflows.connectors.spool_source import SpoolSource
from dataflows.operators.classify import Judged
from dataflows.operators.decide import decide_window
from dataflows.operators.repeats import Repeats
from dataflows.triage import triage
from edge.config import Config, JsonLines
from edge.intake import Intake, spool_path
from edge.operations import Meters
from edge.outputs import dead_letter_sink, outlets
from edge.pulse import Pulse, PulsingSource
from edge.readings import readings
from edge.recovery import recovery_config
from models.classifier import Classifier, Current
from models.contracts.policy import Policy
from models.contracts.verdict import Verdict
from models.contracts.wire import decode_verdict, encode_lines
from models.masking import Masking
from models.opening import open_classifier
from quantize.terminal import say_warnings_only

_TARGET = 8_000
_HIT_RATE = 0.95
_RATIO = 30
_FILL_S = 300.0
_ROUNDS = 9


class Run:
    """One run of the flow over lines, and what came out; its files are there as long as it is."""

    def __init__(self, release: str, lines: Iterable[Sequence[str]], *, cached: bool) -> None:
        self._folder = TemporaryDirectory(prefix="headwater-bench-")
        folder = Path(self._folder.name)
        self.events = _fill(config(folder), lines)
        mode = "on" if cached else "off"
        subprocess.run([sys.executable, "-m", "bench.cache.flow", folder, release, mode], check=True, cwd=ROOT)
        self.told = json.loads((folder / "told.json").read_text())
        came = [verdict.cached is not None for verdict in self.verdicts() if verdict.revision == 0]
        if len(came) != self.events:
            raise RuntimeError(f"bench: {self.events} events in, {len(came)} verdicts out; the figure is none")
        self.hit_rate = sum(came) / len(came)

    @property
    def per_second(self) -> float:
        return float(self.events / self.told["wall_s"])

    def verdicts(self) -> Iterator[Verdict]:
        """Return every verdict in the order in which it was delivered, those that take another back included."""
        path = _output(config(Path(self._folder.name)))
        for file in (*sorted(path.parent.glob(f"{path.stem}.[0-9]*{path.suffix}")), path):
            with file.open("rb") as lines:
                yield from map(decode_verdict, lines)


@cache
def replayed(sizes: Sizes) -> Run:
    """Run the flow over the whole stream, once for everything that is measured of it."""
    run = Run(sizes.release, map(stream_of(sizes).replay, range(sizes.replays)), cached=True)
    counts = ", ".join(f"{name} {count}" for name, count in sorted(run.told["counts"].items()))
    seconds = f"{run.told['wall_s']:.1f} s, {run.told['cpu_s']:.1f} s of processor time"
    print(f"flow: {run.events} events in {seconds}; {counts}", file=sys.stderr)
    split = ", ".join(f"{name} {us:.1f}" for name, us in run.told["split_us"].items())
    print(f"flow: us an event that is answered from the cache: {split}", file=sys.stderr)
    return run


@cache
def stream_of(sizes: Sizes) -> Stream:
    """Return the lines that are replayed."""
    return Stream(sizes.lines)


def rows(sizes: Sizes) -> list[Row]:
    """Measure with the cache, and on a part of the stream without."""
    run, of = replayed(sizes), f"{sizes.replays} replays"
    stream = stream_of(sizes)
    asked = islice(stream.replay(1), sizes.modelled * len(stream.sources))
    peer = Run(sizes.release, [list(asked)], cached=False)
    ratio = run.per_second / peer.per_second
    without = f"cache off, {peer.events} events: {peer.per_second:.1f}"
    return [
        Row(
            name="events_per_s_cached",
            value=run.per_second,
            unit=f"events/s over {run.events}",
            peer=of,
            passed=run.per_second >= _TARGET,
        ),
        Row(
            name="hit_rate",
            value=run.hit_rate,
            unit=f"share of {run.events}",
            peer=of,
            passed=run.hit_rate >= _HIT_RATE,
        ),
        Row(
            name="cached_vs_model",
            value=run.per_second,
            unit="events/s",
            peer=without,
            ratio=ratio,
            passed=ratio >= _RATIO,
        ),
    ]


def _output(gateway: Config) -> Path:
    (output,) = gateway.outputs
    if not isinstance(output, JsonLines):
        raise TypeError(f"{output.name}: JSON lines wanted")
    return Path(output.path)


def _fill(gateway: Config, replays: Iterable[Sequence[str]]) -> int:
    """Send every line through the door, so that the rows are those that a gateway has; return how many there were."""
    intake = Intake(gateway)
    intake.start()
    reader = SpoolReader(spool_path(gateway))
    events = 0
    try:
        with socket.create_connection(("127.0.0.1", intake.listening["bench"])) as sender:
            for lines in replays:
                sender.sendall(b"".join(line.encode() + b"\n" for line in lines))
                events += len(lines)
        deadline = monotonic() + _FILL_S
        while (found := reader.status().counters.events.get("bench", 0)) < events:
            if monotonic() > deadline:
                raise RuntimeError(f"bench: {found} of {events} events in the spool after {_FILL_S:.0f} s")
            sleep(0.05)
    finally:
        reader.close()
        intake.stop()
    return events


def _run(folder: Path, classifier: Classifier, policy: Policy) -> None:
    """Run the flow as the gateway lays it out, until the spool is empty."""
    gateway, stop, pulse = config(folder), Flag(), Pulse()
    meters = Meters(pulse.beat)
    letters = dead_letter_sink(gateway, stop, meters)
    events = gateway.model.batch_events
    known = VerdictCache(b"bench")
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
        cache=known,
        window_events=events,
        wait=stop.wait,
        observer=meters,
    )
    recovery = recovery_config(folder / "recovery", timedelta(0))
    wall, cpu = perf_counter(), process_time()
    cli_main(flow, epoch_interval=timedelta(milliseconds=gateway.gateway.epoch_ms), recovery_config=recovery)
    told = {"wall_s": perf_counter() - wall, "cpu_s": process_time() - cpu, "counts": dict(known.counts)}
    if policy.cache.enabled:
        told["split_us"] = _split_us(known, classifier, policy, _output(gateway))
    (folder / "told.json").write_text(json.dumps(told))


def _split_us(known: VerdictCache, classifier: Classifier, policy: Policy, output: Path) -> dict[str, float]:
    """Return what each step costs for an event that the cache answers: the fastest of a few rounds."""
    with output.open("rb") as lines:
        said = [verdict for verdict in map(decode_verdict, lines) if verdict.cached]
    texts = [verdict.text for verdict in said[-WINDOW:]]
    events = events_of(texts)
    mask = Masking(policy.cache.masks, policy.cache.known_addresses).mask

    key = _fastest_us(lambda: [mask(event.body) for event in events], len(events))
    turn = known.recall(events)
    pairs = [(event, opinion) for event, opinion in zip(events, turn.opinions, strict=True) if opinion is not None]
    judged = Judged([event for event, _ in pairs], [opinion for _, opinion in pairs], classifier.release)
    verdicts = decide_window(judged, policy)
    return {
        "decode": _fastest_us(lambda: events_of(texts), len(events)),
        "key": key,
        "lookup": _fastest_us(lambda: known.recall(events), len(events)) - key,
        "decide": _fastest_us(lambda: decide_window(judged, policy), len(pairs)),
        "encode": _fastest_us(lambda: encode_lines(verdicts), len(pairs)),
    }


def _fastest_us(work: Callable[[], object], events: int) -> float:
    """Return the processor time of the fastest of a few rounds, for each of the events."""
    fastest = float("inf")
    for _ in range(_ROUNDS):
        begun = process_time()
        work()
        fastest = min(fastest, process_time() - begun)
    return fastest / events * 1e6


if __name__ == "__main__":
    say_warnings_only()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with closing(open_classifier(sys.argv[2], threads=1)) as opened:
        own = opened.release.policy
        _run(Path(sys.argv[1]), opened, replace(own, cache=replace(own.cache, enabled=sys.argv[3] == "on")))
