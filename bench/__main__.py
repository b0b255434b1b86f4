"""`python -m bench`: runs every measurement, prints a table and writes `build/bench.json`."""

import subprocess
import sys
import tempfile
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.table import Table

from bench.figures import figure, target
from bench.row import Row

# Each module has `rows() -> list[Row]` and runs its peers itself, so that both sides meet the same machine and load.
NAMES_BY_MODULE = {
    "label": (
        "label_vs_grammar",
        "label_vs_one_token",
        "label_vs_server",
        "decode_efficiency",
        "fields_vs_grammar",
        "label_vs_grammar_qwen",
        "fields_vs_grammar_qwen",
    ),
    "pipeline": ("pipeline_events_per_s",),
    "gateway": (
        "events_per_s",
        "latency_p95_ms",
        "latency_p99_ms",
        "latency_p95_ms_at_50",
        "latency_p99_ms_at_50",
        "udp_lost",
        "rss_mb",
    ),
}
RESULTS = Path(__file__).parent.parent / "build" / "bench.json"
# A process of its own: what one measurement leaves in memory, or a crash in native code, does not reach the next.
MEASURE = """
import importlib, pathlib, sys, msgspec

rows = importlib.import_module(f"bench.{sys.argv[1]}").rows()
pathlib.Path(sys.argv[2]).write_bytes(msgspec.json.encode(rows))
"""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--only", "wanted", multiple=True, metavar="NAME", help="A module's or a row's name; may be given again.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), default=RESULTS, show_default=True)
def main(wanted: tuple[str, ...], output: Path) -> None:
    """Measure what the README claims. Exits 1 where a target is missed or a figure is missing.

    With --only, the other figures in the output stay what they were.

    \b
    Examples:
      ./just bench
      ./just bench --only pipeline
      ./just bench --only udp_lost --only rss_mb
    """
    names = choose(wanted)
    rows = [row for module in modules_of(names) for row in measure(module) if row.name in names]
    missing, missed = finish(rows, names, output, keep=bool(wanted))
    sys.exit(bool(missing or missed))


def finish(rows: list[Row], names: set[str], output: Path, *, keep: bool) -> tuple[list[str], list[str]]:
    """Show and write the rows; return the names that were not measured, and those below their target, and say them.

    With `keep`, rows in the file that were not asked for stay.
    """
    show(rows)
    kept = [row for row in read(output) if row.name not in names] if keep else []
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(msgspec.json.format(msgspec.json.encode([*kept, *rows])) + b"\n")
    missing = sorted(names - {row.name for row in rows})
    missed = [row.name for row in rows if row.passed is False]
    if missing:
        click.echo(f"not measured: {', '.join(missing)}", err=True)
    if missed:
        click.echo(f"below target: {', '.join(missed)}", err=True)
    return missing, missed


def choose(wanted: tuple[str, ...]) -> set[str]:
    """Return the names of the rows that were asked for: all of them, unless some are named."""
    known = {name for names in NAMES_BY_MODULE.values() for name in names}
    for name in wanted:
        if name not in known | NAMES_BY_MODULE.keys():
            raise click.BadParameter(f"{name}: neither a module {sorted(NAMES_BY_MODULE)} nor a row {sorted(known)}")
    return {row for name in wanted for row in NAMES_BY_MODULE.get(name, (name,))} or known


def modules_of(names: set[str]) -> list[str]:
    """Return the modules that measure these rows."""
    return [module for module, measured in NAMES_BY_MODULE.items() if names.intersection(measured)]


def measure(module: str) -> list[Row]:
    """Return what one module measured; nothing, where it failed and said why on standard error."""
    click.echo(f"measuring {', '.join(NAMES_BY_MODULE[module])} …", err=True)
    with tempfile.NamedTemporaryFile(suffix=".json") as results:
        done = subprocess.run([sys.executable, "-c", MEASURE, module, results.name], check=False)
        if done.returncode:
            click.echo(f"bench.{module} ended with {done.returncode}", err=True)
            return []
        return read(Path(results.name))


def read(path: Path) -> list[Row]:
    """Return the rows in a file; none, where there is no file yet."""
    return msgspec.json.decode(path.read_bytes(), type=list[Row]) if path.exists() else []


def show(rows: list[Row]) -> None:
    """Print the figures as a table."""
    table = Table("name", "value", "unit", "against", "ratio", "target")
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        words = target(row).replace(": met", ": [green]met[/]").replace("**missed**", "[red]missed[/]")
        table.add_row(row.name, figure(row), row.unit, row.peer, ratio, words)
    Console().print(table)


if __name__ == "__main__":
    main(prog_name="./just bench")
