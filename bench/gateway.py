"""How fast a running gateway is, from a socket to the output file, on two cores with the default release.

Senders and readers share the two cores with the gateway, as they do in no deployment: the figures are the lower for it.
"""

import os
import random
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from threading import Thread
from time import monotonic, sleep

import psutil
from msgspec import Struct

from bench.row import Row
from edge.init import SHIPPED_RELEASE
from edge.loopback import UDP, LoopbackGateway
from edge.senders import as_syslog
from models.release_file import release_path

LOGS = Path(__file__).parents[2] / "shared" / "data" / "loghub"
SAMPLE = Path(__file__).parents[1] / "edge" / "sample.log"
CORES = 2
ROUNDS = 3
SATURATED_S, WARM_S = 12.0, 3.0
OPEN_LOOP_S = 20.0
LOAD = 0.7  # of saturation
USUAL_PER_S = 50.0  # the same on every machine, so that figures can be compared
LATENCY_P95_MS, LATENCY_P99_MS = 50.0, 200.0
UDP_PER_S, UDP_S = 20_000, 10
RSS_MIB = 150.0
_LOOK_S = 0.002

# Runs in a process of its own, so that neither its clock nor its socket waits for the reader of the results.
UDP_SENDER = """
import socket, sys, time
port, per_second, seconds, path = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
lines = open(path, "rb").read().splitlines()
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.connect(("127.0.0.1", port))
began, sent, total = time.monotonic(), 0, per_second * seconds
while sent < total:
    due = min(total, int((time.monotonic() - began) * per_second))
    if due == sent:
        time.sleep(0.001)
    for number in range(sent, due):
        sock.send(lines[number % len(lines)])
    sent = due
print(sent, time.monotonic() - began)
"""


class Subject(LoopbackGateway):
    """A gateway of its own for a measurement."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, "bench", SHIPPED_RELEASE)

    def start(self) -> None:
        cores = os.sched_getaffinity(0)
        os.sched_setaffinity(0, set(sorted(cores)[:CORES]))  # inherited by what we start
        try:
            self.process.start()
        finally:
            os.sched_setaffinity(0, cores)
        self.process.wait_until_ready()

    def delivered(self) -> int:
        """Return how many verdicts are in the output file."""
        if not self.output.exists():
            return 0
        with self.output.open("rb") as file:
            return sum(piece.count(b"\n") for piece in iter(lambda: file.read(1 << 20), b""))

    def resident_mib(self) -> float:
        """Return what both processes keep resident, each page once.

        What the intake shares with anyone (the interpreter, a few libraries) is in the gateway's RSS already.
        """
        gateway = psutil.Process(self.process.pid)
        (intake,) = gateway.children()
        return float(gateway.memory_info().rss + intake.memory_full_info().uss) / (1 << 20)


def rows() -> list[Row]:
    """Measure everything, one gateway after the other; the medians of a few rounds."""
    lines = real_lines()
    rounds = [_round(lines) for _ in range(ROUNDS)]
    with subject() as gateway:
        usual_ms = _cuts_ms(open_loop(gateway, lines, USUAL_PER_S))
    with subject() as gateway:
        lost = udp_loss(gateway, lines)
    per_second, p95_ms, p99_ms = (median(figures) for figures in zip(*(r.figures for r in rounds), strict=True))
    model_mib = release_path(SHIPPED_RELEASE).stat().st_size / (1 << 20)
    beside_mib = max(r.resident_mib for r in rounds) - model_mib
    return [
        Row(name="events_per_s", value=per_second, unit="events/s"),
        Row(name="latency_p95_ms", value=p95_ms, unit="ms", passed=p95_ms < LATENCY_P95_MS),
        Row(name="latency_p99_ms", value=p99_ms, unit="ms", passed=p99_ms < LATENCY_P99_MS),
        Row(name="latency_p95_ms_at_50", value=usual_ms[94], unit="ms"),
        Row(name="latency_p99_ms_at_50", value=usual_ms[98], unit="ms"),
        Row(name="udp_lost", value=lost, unit=f"of {UDP_PER_S * UDP_S}", passed=lost == 0),
        # The most after saturation, less the size of the model file.
        Row(name="rss_mb", value=beside_mib, unit="MiB", passed=beside_mib <= RSS_MIB),
    ]


class _Round(Struct, frozen=True):
    figures: tuple[float, float, float]  # events per second, and milliseconds of the 95th and 99th percentile
    resident_mib: float


def _round(lines: Sequence[bytes]) -> _Round:
    """Measure saturation, and at once latency at a share of it: a machine has faster and slower minutes."""
    with subject() as gateway:
        per_second = saturation(gateway, lines)
        resident_mib = gateway.resident_mib()
    with subject() as gateway:
        cuts = _cuts_ms(open_loop(gateway, lines, LOAD * per_second))
    return _Round((per_second, cuts[94], cuts[98]), resident_mib)


def _cuts_ms(latencies_ms: Sequence[float]) -> list[float]:
    return quantiles(latencies_ms, n=100, method="inclusive")


def real_lines() -> list[bytes]:
    """Return real lines, the sources taking turns as at a gateway that hears all of them; else the shipped sample."""
    logs = [LOGS / f"{name}_2k.log" for name in ("OpenSSH", "Linux", "Apache")]
    files = [path for path in logs if path.exists()] or [SAMPLE]
    turns = zip(*(path.read_bytes().splitlines() for path in files), strict=False)
    return [as_syslog(line) for turn in turns for line in turn if line.strip()]


@contextmanager
def subject() -> Iterator[Subject]:
    """Run a fresh gateway."""
    with TemporaryDirectory(prefix="headwater-bench-") as directory:
        gateway = Subject(Path(directory))
        gateway.start()
        try:
            yield gateway
        finally:
            gateway.process.kill()


def saturation(gateway: Subject, lines: Sequence[bytes]) -> float:
    """Return verdicts per second while more is always waiting."""
    with socket.create_connection(("127.0.0.1", gateway.tcp)) as sock:
        sender = Thread(target=_flood, args=(sock, lines), daemon=True)
        sender.start()
        while not gateway.delivered():
            sleep(_LOOK_S)
        sleep(WARM_S)
        before, began = gateway.delivered(), monotonic()
        sleep(SATURATED_S)
        after, ended = gateway.delivered(), monotonic()
    sender.join()
    return (after - before) / (ended - began)


def open_loop(gateway: Subject, lines: Sequence[bytes], per_second: float) -> list[float]:
    """Send at random moments, `per_second` on average, whatever comes back; return the milliseconds to each verdict.

    One connection and one flow keep the order, so the nth verdict answers the nth line.
    """
    chance = random.Random(1)
    count = max(200, round(per_second * OPEN_LOOP_S))
    step = max(1, len(lines) // count)
    chosen = [lines[number * step % len(lines)] for number in range(count)]
    sent_at: list[float] = []
    seen_at: list[float] = []
    reader = Thread(target=_watch, args=(gateway, count, seen_at), daemon=True)
    reader.start()
    with socket.create_connection(("127.0.0.1", gateway.tcp)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        due = monotonic()
        for line in chosen:
            due += chance.expovariate(per_second)
            if (wait_s := due - monotonic()) > 0:
                sleep(wait_s)
            sent_at.append(due)  # a sender that is late does not excuse the gateway
            sock.sendall(line + b"\n")
        reader.join(60)
    if len(seen_at) < count:
        raise RuntimeError(f"{len(seen_at)} of {count} lines had a verdict a minute after the last was sent")
    return [1e3 * (seen - sent) for sent, seen in zip(sent_at, seen_at, strict=True)]


def udp_loss(gateway: Subject, lines: Sequence[bytes]) -> int:
    """Return how many datagrams of a long burst were not accepted, by the gateway's own exact count."""
    path = gateway.output.with_name("lines")
    path.write_bytes(b"\n".join(lines))
    arguments = [str(gateway.udp), str(UDP_PER_S), str(UDP_S), str(path)]
    done = subprocess.run([sys.executable, "-c", UDP_SENDER, *arguments], capture_output=True, text=True, check=True)
    sent = int(done.stdout.split()[0])
    accepted, settled_at = -1, monotonic()
    while monotonic() - settled_at < 2.0:
        now = int(gateway.process.total("headwater_events_total", source=UDP))
        if now != accepted:
            accepted, settled_at = now, monotonic()
        sleep(0.1)
    return sent - accepted


def _flood(sock: socket.socket, lines: Sequence[bytes]) -> None:
    """Write until the gateway is gone: it reads faster than it answers, and stops reading when its spool is full."""
    piece = b"".join(line + b"\n" for line in lines)
    try:
        while True:
            sock.sendall(piece)
            sleep(0.5)
    except OSError:
        return


def _watch(gateway: Subject, count: int, seen_at: list[float]) -> None:
    """Note when each line of the output appeared."""
    while not gateway.output.exists():
        sleep(_LOOK_S)
    with gateway.output.open("rb") as file:
        while len(seen_at) < count:
            lines = file.read().count(b"\n")
            if lines:
                seen_at.extend([monotonic()] * lines)
            else:
                sleep(_LOOK_S)
