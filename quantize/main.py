"""Command line: train the default release, or write the sample."""

from pathlib import Path

import click

from quantize.event_types import read_event_types
from quantize.sample import sample_lines


@click.group()
def cli() -> None:
    """Make the default release and the sample from the corpus."""


@cli.command()
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), default=Path("edge/sample.log"), show_default=True
)
def sample(out: Path) -> None:
    """Write the sample lines that `./just demo` sends."""
    lines = sample_lines(read_event_types())
    out.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    click.echo(f"{out}: {len(lines)} lines, {out.stat().st_size} bytes")
