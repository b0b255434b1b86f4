"""`python -m bench.central`: measures the centre, prints a table and writes `build/bench-central.json`."""

import signal
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import click

from bench.__main__ import finish
from bench.pipeline import ROOT
from bench.row import Row
from quantize.terminal import say_warnings_only

RESULTS = ROOT / "build" / "bench-central.json"
MEASURED = {
    "kafka": ("kafka_events_per_s", "kafka_scaling"),
    "server": ("server_concurrency", "parse_failures"),
    "parity": ("parity_max_difference",),
    "cascade": ("cascade_gain", "cascade_accuracy_kept", "cascade_escalated", "cascade_injection_flips"),
    "warehouse": ("warehouse_verdicts_per_s", "warehouse_query_ms"),
    "gpu": ("gpu_labels_per_s", "gpu_share_of_limit"),
}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--only", "wanted", multiple=True, metavar="NAME", help="A module's or a row's name; may be given again.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), default=RESULTS, show_default=True)
def main(wanted: tuple[str, ...], output: Path) -> None:
    """Measure the centre, with real servers on this machine. Exits 1 where a target is missed or a figure is missing.

    With --only, the other figures in the output stay what they were.

    \b
    Examples:
      ./just bench-central
      ./just bench-central --only kafka
      ./just bench-central --only cascade_escalated
    """
    say_warnings_only()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # servers that we started end with us
    known = {name for names in MEASURED.values() for name in names}
    for name in wanted:
        if name not in known | MEASURED.keys():
            raise click.BadParameter(f"{name}: neither a module {sorted(MEASURED)} nor a row {sorted(known)}")
    chosen = {row for name in wanted for row in MEASURED.get(name, (name,))} or known
    missing, missed = finish(list(_measured(chosen)), chosen, output, keep=bool(wanted))
    sys.exit(bool(missing or missed))


def _measured(chosen: set[str]) -> list[Row]:
    rows: list[Row] = []
    for module, names in MEASURED.items():
        if asked := sorted(chosen.intersection(names)):
            click.echo(f"measuring {', '.join(asked)} …", err=True)
            work: Callable[[], list[Row]] = import_module(f"bench.central.{module}").rows
            rows += [row for row in work() if row.name in chosen]
    return rows


if __name__ == "__main__":
    main(prog_name="./just bench-central")
