"""`python -m edge demo`: a real gateway, lines of the shipped sample through real sockets, and a full count."""

import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from math import isnan
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, sleep, time

from rich.console import Console
from rich.live import Live

from dataflows.connectors.mqtt_publisher import MqttCarrier, Publishing
from dataflows.running.harvest import Harvest
from dataflows.running.local_mosquitto import mosquitto
from edge.gateway_process import GatewayProcess
from edge.init import SHIPPED_RELEASE
from edge.loopback import TCP, UDP, LoopbackGateway
from edge.senders import as_syslog, line_framed, octet_counted, paced, send_tcp, send_udp
from edge.view import Score, line, picture
from models.contracts.errors import HeadwaterError, UnavailableError
from models.contracts.task import Task
from models.contracts.wire import decode_toml

SAMPLE = Path(__file__).with_name("sample.log")
_TASK = Path(__file__).parent.parent / "models" / "tasks" / "soc-triage.toml"
EVENTS = 300  # lines of the sample, which is in a random order: its first are as mixed as all
TIMES = 2  # each is sent: real streams repeat themselves, and the cache is to be seen at work
# Slower than the default model reads these lines on two cores, so that answers come as they do in service. It reads a
# line whole, and one of JSON has hundreds of tokens.
_SEND_S = 20.0
_END_WITHIN_S = 45.0  # of sending and waiting; starting and stopping take a few seconds
_QUIET_S = 10.0  # without a verdict, once everything is sent: no more are coming
_REFRESH_S = 0.1
_LINE_EVERY_S = 2.0
_LOOK_EVERY_S = 0.5  # at the gateway's own figures

_MQTT_SOURCE = """
[[sources]]
kind = "mqtt"
name = "mqtt"
port = {port}
topics = ["devices/+/log"]
"""

Send = Callable[[Iterable[Sequence[bytes]]], None]


class Sender:
    """One share of the sample on its way through one source."""

    def __init__(self, source: str, lines: Sequence[bytes], send: Send) -> None:
        self.source = source
        self.lines = lines
        self.sent = 0
        self._send = send

    def run(self) -> None:
        self._send(self._counted(paced(self.lines, len(self.lines) / _SEND_S, at_once=1)))

    def _counted(self, writes: Iterable[Sequence[bytes]]) -> Iterator[Sequence[bytes]]:
        for write in writes:
            yield write
            self.sent += len(write)


def run() -> int:
    """Run the demo; return 0 only if every event that was sent has exactly one verdict."""
    console = Console(highlight=False, soft_wrap=True)
    # What we started ends with us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="headwater-demo-")))
        mqtt = stack.enter_context(mosquitto(directory))
        more = _MQTT_SOURCE.format(port=mqtt) if mqtt else ""
        gateway = LoopbackGateway(directory, "demo", SHIPPED_RELEASE, more)
        console.print("starting a gateway: it tries the model in a child process, then opens its ports …")
        gateway.process.start()
        stack.callback(gateway.process.kill)
        try:
            ready_s = gateway.process.wait_until_ready()
        except UnavailableError as error:
            console.print(str(error), markup=False)
            return 1
        ways = f"syslog on TCP {gateway.tcp} and UDP {gateway.udp}, " + (
            f"MQTT by the broker on {mqtt}" if mqtt else "no MQTT: no mosquitto is installed"
        )
        console.print(f"ready after {ready_s:.1f} s: {ways}")
        senders = deal(sample(), gateway.tcp, gateway.udp, mqtt)
        harvest = Harvest(gateway.output)
        _watch(console, gateway.process, senders, harvest)
        code, stop_s = gateway.process.stop()
        console.print(f"the gateway stopped with exit code {code} after {stop_s:.1f} s")
        harvest.gather()
        return summary(console, senders, harvest) or code


def sample() -> list[bytes]:
    """Return the lines that are sent."""
    return SAMPLE.read_bytes().splitlines()[: EVENTS // TIMES] * TIMES


def deal(lines: Sequence[bytes], tcp: int, udp: int, mqtt: int) -> list[Sender]:
    """Deal lines out to one sender of each kind."""
    ways: list[tuple[str, Send]] = [
        (TCP, lambda writes: send_tcp(tcp, writes, line_framed)),
        (TCP, lambda writes: send_tcp(tcp, writes, octet_counted)),
        (UDP, lambda writes: send_udp(udp, writes)),
    ]
    if mqtt:
        ways.append(("mqtt", lambda writes: send_mqtt(mqtt, writes)))
    syslog = [as_syslog(each) for each in lines]
    return [Sender(source, syslog[number :: len(ways)], send) for number, (source, send) in enumerate(ways)]


def send_mqtt(port: int, writes: Iterable[Sequence[bytes]]) -> None:
    """Publish a message a line, each acknowledged by the broker."""
    carrier = MqttCarrier(Publishing(host="127.0.0.1", port=port, topic="devices/demo/log", client_id="demo-device"))
    try:
        for write in writes:
            carrier.deliver(write)
    finally:
        carrier.close()


def summary(console: Console, senders: Sequence[Sender], harvest: Harvest) -> int:
    """Match what came out with what was sent, text by text; print the count last and return the exit code."""
    sent = Counter((sender.source, each.decode("utf-8", "replace")) for sender in senders for each in sender.lines)
    came = Counter((verdict.source, verdict.text) for verdict in harvest.verdicts.values())
    lost, strange = sent - came, came - sent
    for source, count in Counter(source for source, _ in lost.elements()).items():
        console.print(f"lost on the way through {source}: {count}")
    if strange:
        console.print(f"verdicts on what nobody sent: {strange.total()}")
    console.print(f"{sent.total()} events in, {came.total()} verdicts out, {lost.total()} lost")
    return 0 if sent == came else 1


def _watch(console: Console, gateway: GatewayProcess, senders: Sequence[Sender], harvest: Harvest) -> None:
    """Send, and show what comes out, until everything has or nothing more does."""
    expected = sum(len(sender.lines) for sender in senders)
    task = decode_toml(_TASK.read_text(encoding="utf-8"), Task, str(_TASK))
    score = Score(task.label_names)
    with ThreadPoolExecutor(len(senders)) as pool, _screen(console, score) as show:
        began = progressed = looked = monotonic()
        running = [pool.submit(sender.run) for sender in senders]
        while score.verdicts < expected and gateway.ended is None:
            new = harvest.gather()
            now = monotonic()
            score.add(new, time() * 1e3)
            score.sent, score.elapsed_s = sum(sender.sent for sender in senders), now - began
            if now - looked >= _LOOK_EVERY_S:
                looked = now
                score.audits = _count(gateway, "headwater_cache_audits_total")
                score.disagreements = _count(gateway, "headwater_cache_disagreements_total")
            show()
            if new or not all(future.done() for future in running):
                progressed = now
            if now - progressed > _QUIET_S:
                break
            if now - began > _END_WITHIN_S:
                console.print(
                    f"{score.verdicts} of {expected} answered in {_END_WITHIN_S:.0f} s, on a machine that is too slow "
                    "or too busy; what has no answer by now counts as lost"
                )
                break
            sleep(_REFRESH_S)
        if gateway.ended is not None:
            console.print(f"the gateway ended by itself:\n{gateway.log_tail()}", markup=False)
    for sender, future in zip(senders, running, strict=True):
        _report(console, sender, future)


def _count(gateway: GatewayProcess, name: str) -> int:
    """Return a figure of the gateway; 0 where it does not answer just now."""
    value = gateway.total(name)
    return 0 if isnan(value) else int(value)


def _report(console: Console, sender: Sender, future: Future[None]) -> None:
    try:
        future.result()
    except (OSError, HeadwaterError) as error:
        console.print(f"sending to {sender.source} failed after {sender.sent} lines: {error}", markup=False)


@contextmanager
def _screen(console: Console, score: Score) -> Iterator[Callable[[], None]]:
    """Yield what shows the score: a live picture on a terminal, a line every two seconds elsewhere."""
    if console.is_terminal:
        with Live(console=console, auto_refresh=False) as live:
            yield lambda: live.update(picture(score, f"gateway demo · {SHIPPED_RELEASE}"), refresh=True)
        return
    printed_at = -_LINE_EVERY_S

    def show() -> None:
        nonlocal printed_at
        if score.elapsed_s - printed_at >= _LINE_EVERY_S:
            printed_at = score.elapsed_s
            console.print(line(score))

    yield show
    console.print(line(score))
