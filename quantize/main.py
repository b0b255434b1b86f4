"""Command line: train the default release, or write the sample."""

import logging
import sys
from pathlib import Path

import click
import structlog
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from quantize.event_types import read_event_types
from quantize.sample import sample_lines


@click.group()
def cli() -> None:
    """Make the default release and the sample from the corpus."""
    # llama.cpp says a lot at debug.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))


@cli.command()
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default="edge/sample.log", show_default=True)
def sample(out: Path) -> None:
    """Write the sample lines that `./just demo` sends."""
    lines = sample_lines(read_event_types())
    out.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    click.echo(f"{out}: {len(lines)} lines, {out.stat().st_size} bytes")


@cli.command()
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder for what is made.")
@click.option("--number", type=click.IntRange(min=1), default=1, show_default=True, help="The release's number.")
@click.option("--epochs", type=click.IntRange(min=1), help="Fewer make a rough model sooner.")
@click.option(
    "--measure-only",
    is_flag=True,
    help="Train nothing: quantize, calibrate and measure what lies in --out, trained with as many --epochs.",
)
@click.option("--allow-blocked", is_flag=True, help="Exit with 0 although the release misses a bound.")
def train_default(out: Path, number: int, epochs: int | None, measure_only: bool, allow_blocked: bool) -> None:  # noqa: FBT001 - click's
    """Train, quantize, calibrate, measure and package `soc-triage`.

    A release that misses a bound (quantize/gate.py) is written with the reasons in its card and its metadata, and the
    exit code is 1.

    \b
    Examples:
      python -m quantize train-default --out build/soc-triage --number 2 --epochs 16
      python -m quantize train-default --out build/rough --epochs 1 --allow-blocked
    """
    # Training needs torch, which the sample does not.
    import torch  # noqa: PLC0415

    from quantize import train  # noqa: PLC0415
    from quantize.default_release import finish_default, train_release  # noqa: PLC0415

    torch.set_num_threads(1)  # more threads add in another order: the same weights need the same number
    out.mkdir(parents=True, exist_ok=True)
    plan = train.Plan(epochs=epochs) if epochs else train.Plan()
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    if not measure_only:
        with Progress(*columns) as bar:
            shown = bar.add_task("training")

            def report(at: train.Progress) -> None:
                bar.update(
                    shown,
                    total=at.steps,
                    completed=at.step,
                    description=f"training: step {at.step}/{at.steps}, label loss {at.label_loss:.2f}",
                )

            train_release(out, plan, report)
    finished = finish_default(out, number, plan, click.echo)
    click.echo(f"release: {finished.path}")
    for reason in finished.blocked:
        click.echo(f"blocked: {reason}", err=True)
    if finished.blocked and not allow_blocked:
        sys.exit(1)
