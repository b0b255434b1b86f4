"""`./just demo-central`: two gateways, a real broker, a real Kafka and the centre, and a balance by event id."""

import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from itertools import islice
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from time import monotonic, sleep, time

from rich.console import Console, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table

from central.ask import asked
from central.balance import ASKED, Balance, Places, balance
from central.local import LocalCentre, LocalGateway
from central.queue.store import Store, Wanted
from central.wiring import cluster_of, names_of, queue_url, warehouse_url
from dataflows.connectors.kafka_reader import read_whole
from dataflows.running.local_mosquitto import program
from models.contracts.errors import HeadwaterError
from models.contracts.verdict import CENTRAL, Verdict
from models.contracts.wire import decode_verdict

_SAMPLE = Path(__file__).parent.parent / "edge" / "sample.log"
_EVENTS = 150  # for each gateway
_SEND_S = 15.0
_WITHIN_S = 240.0  # of sending and waiting
_LOOK_EVERY_S = 1.0
_REFRESH_S = 0.1
_PAGE = 10_000


class Demo:
    """The parts, what they were given, and what came out so far."""

    def __init__(self, centre: LocalCentre) -> None:
        self.centre = centre
        self.fed: Counter[tuple[str, str]] = Counter()
        self.first: dict[str, Verdict] = {}
        lines = _SAMPLE.read_text(encoding="utf-8").splitlines()
        self._lines = [iter(lines[number :: len(centre.gateways)][:_EVENTS]) for number in range(len(centre.gateways))]

    def feed(self, elapsed_s: float) -> None:
        """Give each gateway what is due by now."""
        due = min(_EVENTS, int(_EVENTS * elapsed_s / _SEND_S) + 1)
        given = Counter(name for name, _ in self.fed.elements())
        for gateway, lines in zip(self.centre.gateways, self._lines, strict=True):
            self.give(gateway, list(islice(lines, due - given[gateway.name])))

    def give(self, gateway: LocalGateway, lines: Sequence[str]) -> None:
        """Give a gateway lines, and remember them."""
        gateway.feed(lines)
        self.fed.update((gateway.name, line) for line in lines)

    def gather(self) -> None:
        """Take in what gateways have said by now."""
        for gateway in self.centre.gateways:
            for verdict in gateway.harvest.gather():
                self.first.setdefault(verdict.id, verdict)

    def standing(self) -> dict[str, Verdict]:
        """Return by id what stands at the gateways."""
        return {name: said for gateway in self.centre.gateways for name, said in gateway.harvest.verdicts.items()}

    def _rows(self) -> list[tuple[str, int]]:
        with asked("SELECT id, revision FROM verdicts", warehouse_url(self.centre.config)) as result:
            return [(str(name), int(revision)) for name, revision in result.rows]

    def balance(self) -> Balance:
        """Look into every place, and count."""
        config = self.centre.config
        verdicts = read_whole(cluster_of(config), names_of(config).verdicts)
        with closing(Store(queue_url(config))) as store:
            waiting = store.page(Wanted(), int(time() * 1000), limit=_PAGE).items
        return balance(
            Places(
                fed=self.fed,
                first=self.first,
                standing=self.standing(),
                topic=[decode_verdict(record.value or b"") for record in verdicts],
                warehouse=self._rows(),
                waiting=[item.id for item in waiting],
            )
        )


def run() -> int:
    """Run the demo; return 0 only if nothing was lost or doubled."""
    console = Console(highlight=False, soft_wrap=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what we started ends with us
    if not program():
        console.print("the demo needs mosquitto; on Debian: apt-get install mosquitto")
        return 1
    directory = Path(mkdtemp(prefix="headwater-demo-"))
    with ExitStack() as cleared, ExitStack() as opened:
        cleared.callback(rmtree, directory, ignore_errors=True)
        console.print("starting Kafka and mosquitto; the first time, Maven fetches Kafka, which takes minutes …")
        try:
            demo = Demo(LocalCentre(directory, opened))
            demo.centre.start(console.print)
            console.print("ready: two gateways follow a file each, ask the centre what they doubt, and hear from it")
            found = _watch(console, demo)
        except HeadwaterError as error:
            console.print(str(error), markup=False)
            return 1
        if not found.holds:
            cleared.pop_all()
            for name, why in demo.centre.unready().items():
                console.print(f"{name} is not ready: {why}", markup=False)
            console.print(f"what every part said is kept in {directory}", markup=False)
        return _sum_up(console, found)


def _watch(console: Console, demo: Demo) -> Balance:
    """Feed, and look until everything is where it belongs, or time is up."""
    began = looked = monotonic()
    found = None
    with _screen(console) as show:
        while True:
            elapsed = monotonic() - began
            demo.feed(elapsed)
            demo.gather()
            if elapsed > _SEND_S and monotonic() - looked >= _LOOK_EVERY_S:
                found = demo.balance()
                looked = monotonic()
            show(_picture(demo, found))
            is_over = elapsed > _WITHIN_S or not demo.centre.is_whole()
            if found is not None and (found.holds or is_over):
                return found
            sleep(_REFRESH_S)


def _picture(demo: Demo, found: Balance | None) -> Table:
    said = demo.standing().values()
    table = Table.grid(padding=(0, 3))
    routes = Counter(verdict.route for verdict in demo.first.values())
    table.add_row("events in", str(demo.fed.total()))
    table.add_row("verdicts of gateways", f"{len(demo.first)}: " + ", ".join(f"{n} {r}" for r, n in routes.items()))
    table.add_row("asked of the centre", str(sum(routes[route] for route in ASKED)))
    table.add_row("answers back", str(sum(verdict.revision >= CENTRAL for verdict in said)))
    if found is not None:
        table.add_row("answers in Kafka", str(found.answered))
        table.add_row("waiting for a person", str(found.reviewed))
        table.add_row(
            "missing by now", ", ".join(f"{place} {count}" for place, count in found.lost.items()) or "nothing"
        )
    return table


@contextmanager
def _screen(console: Console) -> Iterator[Callable[[Table], None]]:
    """Yield what shows a table: a live picture on a terminal, a line now and then elsewhere."""
    if console.is_terminal:
        with Live(console=console, auto_refresh=False) as live:

            def picture(table: RenderableType) -> None:
                live.update(Panel(table, title="centre demo", expand=False), refresh=True)

            yield picture
        return
    printed_at = float("-inf")

    def line(table: Table) -> None:
        nonlocal printed_at
        if monotonic() - printed_at >= 2.0:
            printed_at = monotonic()
            cells = [list(column.cells) for column in table.columns]
            console.print(" · ".join(f"{name} {value}" for name, value in zip(*cells, strict=True)), markup=False)

    yield line


def _sum_up(console: Console, found: Balance) -> int:
    for place, count in found.lost.items():
        console.print(f"lost at {place}: {count}")
    for place, count in found.doubled.items():
        console.print(f"doubled at {place}: {count}")
    console.print(
        f"{found.events} events in; {found.judged} verdicts of gateways; {found.asked} asked of the centre, "
        f"{found.answered} answered; {found.reviewed} wait for a person; {sum(found.lost.values())} lost, "
        f"{sum(found.doubled.values())} doubled"
    )
    return 0 if found.holds else 1
