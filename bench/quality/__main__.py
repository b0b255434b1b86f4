"""`python -m bench.quality`: measures the shipped releases, prints a table and writes `build/bench-quality.json`."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import click

from bench.__main__ import finish
from bench.quality.measures import MEASURED, ROOT
from bench.row import Row
from models.contracts.errors import HeadwaterError
from quantize.terminal import say_warnings_only

RESULTS = ROOT / "build" / "bench-quality.json"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--only", "wanted", multiple=True, metavar="NAME", help="A row's name; may be given again.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), default=RESULTS, show_default=True)
def main(wanted: tuple[str, ...], output: Path) -> None:
    """Measure the quality of the shipped releases. Exits 1 where a target is missed or a release cannot be measured.

    Figures on events of others are measured where those lie beside the checkout, and left out elsewhere; so are those
    that a release does not record.

    \b
    Examples:
      ./just bench-quality
      ./just bench-quality --only intents_accuracy
    """
    say_warnings_only()
    known = {name for names in MEASURED.values() for name in names}
    for name in wanted:
        if name not in known:
            raise click.BadParameter(f"{name}: no row {sorted(known)}")
    chosen = set(wanted) or known
    rows, failed = measure(chosen, MEASURED)
    _, missed = finish(rows, chosen, output, keep=bool(wanted))
    sys.exit(failed or bool(missed))


def measure(chosen: set[str], measured: Mapping[Callable[[], list[Row]], Sequence[str]]) -> tuple[list[Row], bool]:
    """Return the rows, and whether a measurement failed: it says why in a sentence, and leaves the others."""
    rows, failed = list[Row](), False
    for work, names in measured.items():
        asked = sorted(chosen.intersection(names))
        if not asked:
            continue
        click.echo(f"measuring {', '.join(asked)} …", err=True)
        try:
            rows += [one for one in work() if one.name in chosen]
        except HeadwaterError as error:
            click.echo(f"bench-quality: {error}", err=True)
            failed = True
    return rows, failed


if __name__ == "__main__":
    main(prog_name="./just bench-quality")
