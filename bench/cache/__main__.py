"""`python -m bench.cache`: measures the verdict cache, prints a table and writes `build/bench-cache.json`."""

import sys
from collections.abc import Callable
from pathlib import Path

import click

from bench.__main__ import finish
from bench.cache import agreement, attacks, audits, cost, first_pass, flow
from bench.cache.stream import Sizes
from bench.pipeline import ROOT
from bench.row import Row
from quantize.terminal import say_warnings_only

RESULTS = ROOT / "build" / "bench-cache.json"
MEASURED: dict[Callable[[Sizes], list[Row]], tuple[str, ...]] = {
    flow.rows: ("events_per_s_cached", "hit_rate", "cached_vs_model"),
    first_pass.rows: ("hit_rate_first_pass",),
    agreement.rows: ("cache_disagreement",),
    attacks.rows: ("missed_attacks",),
    audits.rows: ("audit_delay",),
    cost.key_rows: ("key_us",),
    cost.memory_rows: ("cache_mb",),
}
_DEFAULT = Sizes()


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--only", "wanted", multiple=True, metavar="NAME", help="A row's name; may be given again.")
@click.option("--replays", type=click.IntRange(1), default=_DEFAULT.replays, show_default=True, help="Of the stream.")
@click.option(
    "--judged",
    type=click.IntRange(1),
    default=_DEFAULT.judged,
    show_default=True,
    help="Replays held against the model.",
)
@click.option("--attacks", "attacked", type=click.IntRange(1), default=_DEFAULT.attacks, show_default=True)
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), default=RESULTS, show_default=True)
def main(wanted: tuple[str, ...], replays: int, judged: int, attacked: int, output: Path) -> None:
    """Measure the verdict cache with the shipped release. Exits 1 where a target is missed or a figure is missing.

    With --only, the other figures in the output stay what they were. Lines are those of OpenSSH, Linux, Apache and Mac
    hosts where they lie beside the checkout, and the shipped sample elsewhere.

    \b
    Examples:
      ./just bench-cache
      ./just bench-cache --only key_us --only cache_mb
      ./just bench-cache --replays 5 --judged 2 --attacks 30
    """
    say_warnings_only()
    known = {name for names in MEASURED.values() for name in names}
    for name in wanted:
        if name not in known:
            raise click.BadParameter(f"{name}: no row {sorted(known)}")
    chosen = set(wanted) or known
    rows = measure(chosen, Sizes(replays=replays, judged=judged, attacks=attacked))
    missing, missed = finish(rows, chosen, output, keep=bool(wanted))
    sys.exit(bool(missing or missed))


def measure(chosen: set[str], sizes: Sizes) -> list[Row]:
    """Return the rows that were asked for."""
    rows = list[Row]()
    for work, names in MEASURED.items():
        if asked := sorted(chosen.intersection(names)):
            click.echo(f"measuring {', '.join(asked)} …", err=True)
            rows += [row for row in work(sizes) if row.name in chosen]
    return rows


if __name__ == "__main__":
    main(prog_name="./just bench-cache")
