"""`python -m bench.quality`: measures the shipped releases, prints a table and writes `build/bench-quality.json`."""

import sys
from pathlib import Path

import click

from bench.__main__ import finish
from bench.quality.measures import MEASURED, ROOT

RESULTS = ROOT / "build" / "bench-quality.json"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--only", "wanted", multiple=True, metavar="NAME", help="A row's name; may be given again.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), default=RESULTS, show_default=True)
def main(wanted: tuple[str, ...], output: Path) -> None:
    """Measure the quality of the shipped releases. Exits 1 where a target is missed.

    Figures on events of others are measured where those lie beside the checkout, and left out elsewhere.

    \b
    Examples:
      ./just bench-quality
      ./just bench-quality --only intents_accuracy
    """
    known = {name for names in MEASURED.values() for name in names}
    for name in wanted:
        if name not in known:
            raise click.BadParameter(f"{name}: no row {sorted(known)}")
    chosen = set(wanted) or known
    rows = []
    for work, names in MEASURED.items():
        if chosen.intersection(names):
            click.echo(f"measuring {', '.join(sorted(chosen.intersection(names)))} …", err=True)
            rows += [one for one in work() if one.name in chosen]
    _, missed = finish(rows, chosen, output, keep=bool(wanted))
    sys.exit(bool(missed))


if __name__ == "__main__":
    main(prog_name="./just bench-quality")
