"""`label`: a labelled file by hand, the events first of which a label says most."""

import shlex
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from models.contracts.errors import ConfigError, InputError
from models.contracts.task import Task
from quantize import options
from quantize.events import body_of, parted, read_events
from quantize.label_file import LabelFile
from quantize.labelling import PipedKeys, Session, TerminalKeys, Unlabelled
from quantize.progress import Progress
from quantize.ranking import ranked
from quantize.terminal import Sentences, results

_RULES = Path(__file__).parent.parent / "docs" / "tasks"
_MOST = 5_000


@click.command("label", cls=Sentences)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--release", required=True, help="A shipped release's name, or a GGUF's path.")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="Where labels go.  [default: FILE.labelled.jsonl]"
)
@click.option("--jsonl", "field", metavar="FIELD", default="", help="Lines are JSON; `a.b.c` is the path to the text.")
@options.task
@options.context_tokens
@click.option(
    "--rules",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Markdown that says which label is right.  [default: docs/tasks/TASK.md, where it is there]",
)
@click.option(
    "--most",
    type=click.IntRange(min=1),
    default=_MOST,
    show_default=True,
    help="Ask the release about so many different events, drawn evenly from FILE.",
)
def label_command(
    *,
    file: Path,
    release: str,
    out: Path | None,
    field: str,
    task: str,
    context_tokens: int,
    rules: Path | None,
    most: int,
) -> None:
    """Label the events of FILE by hand: any log, an event per line.

    Asks RELEASE about the events and shows them one at a time, that of which it is least certain first; what is like
    something that was labelled or shown before comes after everything that is not. A key says the label, Enter that
    the model is right, s skips, u undoes, ? shows the rules, q quits. Each label is on the disk before the next event
    is shown; the same command goes on where it stopped.

    What is collected so is the hard part of a stream: good to learn from, and harder to be right about than the stream.
    Where standard input is no terminal, each of its lines is a key.

    Exits 0, also when it was interrupted at an event; 1 when the disk takes no more; 2 when the release, FILE or what
    is in --out cannot be used.

    \b
    Examples:
      python -m quantize label /var/log/auth.log --release soc-triage --out auth.jsonl
      python -m quantize label events.jsonl --jsonl message --release build/releases/mine-3.gguf
      python -m quantize label tickets.txt --release ./qwen2.5-0.5b-q4_0.gguf --task models/tasks/support-routing.toml
    """
    from quantize import ask  # noqa: PLC0415 - `--help` answers without loading a runtime
    from quantize.named_release import named_release  # noqa: PLC0415

    if sys.stdin is None:
        raise ConfigError("standard input: found closed, wanted a terminal, or keys, one per line")
    path, found = named_release(release, task)
    out = out or file.with_name(f"{file.name}.labelled.jsonl")
    if out.resolve() == file.resolve():
        raise InputError(f"{out}: is what is read, and labels go to a file of their own; give another --out")
    labels = LabelFile(out, found.task.label_names)
    text_of_rules = _rules(rules, found.task)
    with Progress() as progress:
        events = read_events(file, field)
        if left_out := events.left_out(file, field):
            progress.tell(left_out)
        labelled = [one.text for one in labels.given]
        different = _different(events.texts, labelled, most, progress)
        queue = []
        if different:
            with ask.Asked(path, found, fields=False, context_tokens=context_tokens) as classifier:
                said = ask.answers_of(classifier, list(different), progress.bar(found.title)).probabilities
            queue = _queue(different, said, labelled)
    console = results()
    session = Session(found.task, labels, console, text_of_rules, _now)
    session.run(queue, TerminalKeys() if sys.stdin.isatty() else PipedKeys(sys.stdin.buffer))
    counts = Counter(one.label for one in labels.given)
    by_label = ", ".join(f"{counts[name]} {name}" for name in found.task.label_names if counts[name])
    by_hand = f" ({by_label})" if by_label else ""
    click.echo(f"\nlabelled {session.labelled} of {len(queue)} events; {out} has {len(labels.given)}{by_hand}")
    if len(counts) > 1:
        with_task = ["--task", task, "--context-tokens", str(context_tokens)] if task else []
        click.echo(
            f"next: {shlex.join(['python', '-m', 'quantize', 'measure', release, '--events', str(out), *with_task])}"
        )
    else:
        click.echo("next: the same command; nothing can be measured before two labels have events")


def _different(texts: Sequence[str], labelled: Sequence[str], most: int, progress: Progress) -> dict[str, str]:
    """Return what differs from what is labelled, and from one another, in more than the header: bodies to texts."""
    done = {body_of(text) for text in labelled}
    different: dict[str, str] = {}
    for text in texts:
        if (body := body_of(text)) not in done:
            different.setdefault(body, text)
    if len(different) <= most:
        return different
    progress.tell(f"took {most} of {len(different)} different events, evenly")
    bodies = list(different)
    return {body: different[body] for body in (bodies[number * len(bodies) // most] for number in range(most))}


def _queue(different: Mapping[str, str], said: NDArray[np.float64], labelled: Sequence[str]) -> list[Unlabelled]:
    """Order the events by what a label says; `said` has a row of probabilities for each."""
    bodies = list(different)
    return [
        Unlabelled(different[bodies[at]], parted(different[bodies[at]])[0], bodies[at], tuple(said[at].tolist()))
        for at in ranked(bodies, said, sorted({body_of(text) for text in labelled}))
    ]


def _rules(path: Path | None, task: Task) -> str:
    if path is None:
        path = _RULES / f"{task.name}.md"
        if not path.is_file():
            return ""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: the rules cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
