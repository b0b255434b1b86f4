"""Command line: from a recipe to a release, and what people do with labelled events and releases."""

import sys
from pathlib import Path

import click

from quantize.compare import compare_command
from quantize.label import label_command
from quantize.measure_command import measure_command
from quantize.terminal import INTERRUPTED, Sentences, say_warnings_only

ROOT = Path(__file__).parent.parent
_BLOCKED = 1


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Make, measure and compare releases.

    \b
    Examples:
      python -m quantize run recipes/soc-triage.toml
      python -m quantize measure soc-triage --events labelled.jsonl
      python -m quantize compare soc-triage build/releases/soc-triage-4.gguf --events labelled.jsonl
      python -m quantize label events.log --release soc-triage
    """
    say_warnings_only()


@cli.command(cls=Sentences)
@click.argument("recipe", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), default=ROOT / "build", help="Default: build/ here."
)
@click.option("--allow-blocked", is_flag=True, help="Exit with 0 although the release misses a limit.")
def run(recipe: Path, out: Path, allow_blocked: bool) -> None:  # noqa: FBT001 - click's
    """Train, convert, compress, calibrate, measure, gate and package the release of RECIPE.

    Each step is done once for the same inputs; what was interrupted goes on where it stopped. Paths in a recipe are
    relative to the checkout, or absolute. Leaves OUT/releases/NAME-NUMBER.gguf, and beside it its card (.md), report
    (.html) and figures (.json). Exit code 1: it misses a limit, each of which is named, or a package cannot be fetched,
    or another run of the recipe is at work; 2: something is wrong with the recipe or what it names; 130: interrupted,
    and the same command goes on.

    \b
    Examples:
      python -m quantize run recipes/soc-triage.toml
      python -m quantize run mine.toml --out /data/build
    """
    from quantize.progress import Progress  # noqa: PLC0415 - `--help` is quick
    from quantize.recipe import read_recipe  # noqa: PLC0415
    from quantize.run import run as make  # noqa: PLC0415

    try:
        with Progress() as progress:
            finished = make(read_recipe(recipe), ROOT, out.absolute(), progress)
    except KeyboardInterrupt:
        click.echo("quantize: interrupted; the same command goes on from here", err=True)
        sys.exit(INTERRUPTED)
    click.echo(f"release: {finished.path}")
    click.echo(f"card:    {finished.path.with_suffix('.md')}")
    click.echo(f"report:  {finished.path.with_suffix('.html')}")
    for reason in finished.blocked:
        click.echo(f"blocked: {reason}", err=True)
    if finished.blocked and not allow_blocked:
        sys.exit(_BLOCKED)


cli.add_command(measure_command, "measure")
cli.add_command(compare_command, "compare")
cli.add_command(label_command, "label")


@cli.command()
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default="edge/sample.log", show_default=True)
def sample(out: Path) -> None:
    """Write the sample lines that `./just demo` sends."""
    from quantize.event_types import read_event_types  # noqa: PLC0415
    from quantize.sample import sample_lines  # noqa: PLC0415

    lines = sample_lines(read_event_types())
    out.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    click.echo(f"{out}: {len(lines)} lines, {out.stat().st_size} bytes")
