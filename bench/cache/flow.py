"""How fast the flow is with the verdict cache: spool, flow, model and JSON lines on one core, as the gateway runs.

The spool is filled beforehand by the gateway's own intake, through a socket. Then the flow runs in a process that may
use one core only, the model on one thread, its courier, its recovery store and its meters included, and begins with an
empty cache. Every event is counted in the output.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from functools import cache
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time
from typing import Any

from msgspec.structs import replace

from bench.cache.steps import WINDOW, events_of
from bench.cache.stream import Sizes, Stream
from bench.pipeline import ROOT, config, fill, on_one_core, run
from bench.row import Row
from dataflows.cache.verdict_cache import VerdictCache
from dataflows.operators.classify import Judged
from dataflows.operators.decide import decide_window
from edge.config import Config, JsonLines
from models.classifier import Classifier
from models.contracts.policy import Policy
from models.contracts.verdict import Verdict
from models.contracts.wire import decode_verdict, encode_lines
from models.encoder import READINGS
from models.masking import Masking
from models.opening import open_classifier
from quantize.terminal import say_warnings_only

_TARGET = 8_000
_HIT_RATE = 0.95
_RATIO = 30
_REMEMBERED = 4  # replays
_ROUNDS = 9


class Run:
    """One run of the flow over lines, and what came out; its files are there as long as it is."""

    def __init__(self, release: str, lines: Iterable[Sequence[str]], *, cached: bool, readings: int = READINGS) -> None:
        """Run it with the verdict cache or without; the model remembers so many readings, whatever asks it."""
        self._folder = TemporaryDirectory(prefix="headwater-bench-")
        folder = Path(self._folder.name)
        self.events = fill(config(folder), (b"".join(line.encode() + b"\n" for line in some) for some in lines))
        how = ("on" if cached else "off", str(readings))
        subprocess.run([sys.executable, "-m", "bench.cache.flow", folder, release, *how], check=True, cwd=ROOT)
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
    done = Run(sizes.release, map(stream_of(sizes).replay, range(sizes.replays)), cached=True)
    counts = ", ".join(f"{name} {count}" for name, count in sorted(done.told["counts"].items()))
    seconds = f"{done.told['wall_s']:.1f} s, {done.told['cpu_s']:.1f} s of processor time"
    print(f"flow: {done.events} events in {seconds}; {counts}", file=sys.stderr)
    split = ", ".join(f"{name} {us:.1f}" for name, us in done.told["split_us"].items())
    print(f"flow: us an event that is answered from the cache: {split}", file=sys.stderr)
    return done


@cache
def stream_of(sizes: Sizes) -> Stream:
    """Return the lines that are replayed."""
    return Stream(sizes.lines)


def rows(sizes: Sizes) -> list[Row]:
    """Measure with the cache, and on a part of the stream without."""
    done, of = replayed(sizes), f"{sizes.replays} replays"
    stream = stream_of(sizes)
    asked = islice(stream.replay(1), sizes.modelled * len(stream.sources))
    # An encoder's memory of its own is a cache as well: the model is asked anew only where that is off, too.
    peer = Run(sizes.release, [list(asked)], cached=False, readings=0)
    remembering = Run(sizes.release, map(stream.replay, range(min(_REMEMBERED, sizes.replays))), cached=False)
    ratio = done.per_second / peer.per_second
    without = (
        f"cache off, nothing remembered: {peer.per_second:.1f} over {peer.events}; "
        f"cache off, the model's readings remembered: {remembering.per_second:.1f} over {remembering.events}"
    )
    return [
        Row(
            name="events_per_s_cached",
            value=done.per_second,
            unit=f"events/s over {done.events}",
            peer=of,
            passed=done.per_second >= _TARGET,
        ),
        Row(
            name="hit_rate",
            value=done.hit_rate,
            unit=f"share of {done.events}",
            peer=of,
            passed=done.hit_rate >= _HIT_RATE,
        ),
        Row(
            name="cached_vs_model",
            value=done.per_second,
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


def _run(folder: Path, classifier: Classifier, policy: Policy) -> None:
    """Run the flow, and leave its seconds and the cache's counts in the folder."""
    known = VerdictCache(b"bench")
    told: dict[str, Any] = {**run(folder, classifier, policy, known), "counts": dict(known.counts)}
    if policy.cache.enabled:
        told["split_us"] = _split_us(known, classifier, policy, _output(config(folder)))
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
    on_one_core()
    _folder, _release, _mode, _readings = sys.argv[1:]
    with closing(open_classifier(_release, threads=1, readings=int(_readings))) as opened:
        own = opened.release.policy
        _run(Path(_folder), opened, replace(own, cache=replace(own.cache, enabled=_mode == "on")))
