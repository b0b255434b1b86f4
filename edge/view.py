"""What a person sees of a gateway at work: a live picture on a terminal, a line now and then elsewhere."""

from collections import Counter, deque
from collections.abc import Sequence
from statistics import quantiles

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from models.contracts.verdict import Verdict

_LATEST = 8
_LATENCIES = 2000  # of the newest verdicts
_COLOURS = ("green", "yellow", "red", "magenta", "cyan", "blue")  # in the task's label order: the mildest first


class Score:
    """What has gone in and come out so far."""

    def __init__(self, labels: Sequence[str]) -> None:
        """Take the labels in the task's order, the mildest first; a verdict with any other than that one matters."""
        self.labels = tuple(labels)
        self.sent = 0
        self.elapsed_s = 0.0
        self.verdicts = 0
        self.by_label: Counter[str] = Counter()
        self.by_route: Counter[str] = Counter()
        self.by_source: Counter[str] = Counter()
        self.cached = 0
        self.audits = 0
        self.disagreements = 0
        self._latencies_ms: deque[float] = deque(maxlen=_LATENCIES)
        self._latest: deque[Verdict] = deque(maxlen=_LATEST)

    def add(self, verdicts: Sequence[Verdict], now_ms: float) -> None:
        """Count what came out by now."""
        for verdict in verdicts:
            self.verdicts += 1
            self.by_label[verdict.label] += 1
            self.by_route[verdict.route] += 1
            self.by_source[verdict.source] += 1
            self.cached += verdict.cached is not None
            self._latencies_ms.append(max(0.0, now_ms - verdict.received_at_ms))
            if verdict.label != self.labels[0]:
                self._latest.append(verdict)

    @property
    def per_second(self) -> float:
        return self.verdicts / self.elapsed_s if self.elapsed_s else 0.0

    @property
    def asked(self) -> int:
        """How many verdicts the model gave."""
        return self.verdicts - self.cached

    def latency_ms(self) -> tuple[float, float]:
        """Return median and 95th percentile from receipt to the output file, of the newest verdicts."""
        if len(self._latencies_ms) < 2:
            return 0.0, 0.0
        cuts = quantiles(self._latencies_ms, n=20, method="inclusive")
        return cuts[9], cuts[18]

    def latest(self) -> list[Verdict]:
        """Return the newest verdicts that matter, the newest first."""
        return list(reversed(self._latest))


def picture(score: Score, gateway: str) -> RenderableType:
    """Return the live picture."""
    median_ms, p95_ms = score.latency_ms()
    figures = Table.grid(padding=(0, 3))
    figures.add_row(
        f"[bold]{score.sent}[/] events in",
        f"[bold]{score.verdicts}[/] verdicts out",
        f"[bold]{score.per_second:.0f}[/]/s",
        f"latency [bold]{median_ms:.0f}[/] ms, p95 [bold]{p95_ms:.0f}[/] ms",
    )
    shares = Table.grid(padding=(0, 2))
    for label, colour in zip(score.labels, _COLOURS * len(score.labels), strict=False):
        count = score.by_label[label]
        bar = ProgressBar(total=max(1, score.verdicts), completed=count, width=40, complete_style=colour)
        shares.add_row(Text(label, style=colour), bar, str(count))
    routes = "   ".join(f"{route} {count}" for route, count in score.by_route.most_common())
    cache = (
        f"{score.cached} answered   {score.asked} asked   {score.audits} of them to audit   "
        f"{score.disagreements} disagreed"
    )
    sources = "   ".join(f"{source} {count}" for source, count in sorted(score.by_source.items()))
    latest = Table.grid(padding=(0, 2))
    for verdict in score.latest():
        style = _style(score, verdict.label)
        latest.add_row(
            Text(verdict.label, style=style),
            f"{verdict.confidence:.2f}",
            Text(printable(verdict.text), no_wrap=True, overflow="ellipsis"),
        )
    return Group(
        Panel(
            Group(
                figures,
                Text(""),
                shares,
                Text(""),
                Text(f"routes   {routes}"),
                Text(f"sources  {sources}"),
                Text(f"cache    {cache}"),
            ),
            title=gateway,
        ),
        Panel(latest, title="the latest verdicts that matter", height=_LATEST + 2),
    )


def line(score: Score) -> str:
    """Return the same in one line."""
    median_ms, p95_ms = score.latency_ms()
    labels = ", ".join(f"{score.by_label[label]} {label}" for label in score.labels)
    return (
        f"{score.elapsed_s:5.1f} s  {score.sent} in, {score.verdicts} out ({score.per_second:.0f}/s)  {labels}  "
        f"cache {score.cached} answered, {score.asked} asked, {score.audits} of them to audit, "
        f"{score.disagreements} disagreed  "
        f"latency {median_ms:.0f} ms, p95 {p95_ms:.0f} ms"
    )


def printable(text: str) -> str:
    """Return a text that an attacker wrote as a terminal may show it: no control characters, one line."""
    return "".join(character if character.isprintable() else "·" for character in text)


def _style(score: Score, label: str) -> str:
    return _COLOURS[score.labels.index(label) % len(_COLOURS)] if label in score.labels else "white"
