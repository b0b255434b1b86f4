"""`compare`: on which events two releases of one task differ, and which of them is right."""

import sys
from pathlib import Path

import click
import msgspec

from models.contracts.errors import InputError
from models.contracts.release import Release
from models.contracts.task import Task
from quantize import options
from quantize.events import body_of, is_labelled, read_events
from quantize.labelled import contradictions, read_labelled
from quantize.progress import Progress
from quantize.terminal import Sentences, show


@click.command("compare", cls=Sentences)
@click.argument("a")
@click.argument("b")
@click.option(
    "--events",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Labelled JSON lines, or any log, an event per line.",
)
@click.option("--jsonl", "field", metavar="FIELD", default="", help="Lines are JSON; `a.b.c` is the path to the text.")
@options.context_tokens
@click.option(
    "--examples", type=click.IntRange(min=0), default=10, show_default=True, help="So many events where they differ."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object in place of the tables.")
def compare_command(
    a: str, b: str, events: Path, field: str, *, context_tokens: int, examples: int, as_json: bool
) -> None:
    """Compare releases A and B, shipped releases' names or GGUFs' paths, on the same events.

    Says on how many events their labels differ, which label of A became which of B, and shows those of which both are
    the surest. Where the first line of the file is JSON with `text` or `label`, all lines have to be with both, and it
    says which of the two is right more often than chance would be; with --jsonl, or elsewhere, nothing is known to be
    true.

    Exits 0 when they were compared, 2 when a release or the file cannot be used, or the labels are not the same.

    \b
    Examples:
      python -m quantize compare soc-triage build/releases/soc-triage-4.gguf --events labelled.jsonl
      python -m quantize compare old.gguf new.gguf --events /var/log/auth.log --examples 50
      python -m quantize compare old.gguf new.gguf --events events.jsonl --jsonl message --json
    """
    from quantize import ask  # noqa: PLC0415 - `--help` answers without loading a runtime
    from quantize.differences import differences, tables  # noqa: PLC0415
    from quantize.named_release import named_release  # noqa: PLC0415

    sides = [named_release(a), named_release(b)]
    (_, one), (_, other) = sides
    columns = same_labels(one, other)
    texts, truth, doubt = _read(events, field, one.task)
    bodies = [body_of(text) for text in texts]
    said = []
    with Progress() as progress:
        if doubt:
            progress.tell(doubt)
        for path, release in sides:
            with ask.Asked(path, release, fields=False, context_tokens=context_tokens) as classifier:
                said.append(ask.answers_of(classifier, bodies, progress.bar(release.title)).probabilities)
    said[1] = said[1][:, columns]
    titles, names = (one.title, other.title), one.task.label_names
    compared = differences(titles, names, texts, said, truth, most_examples=examples)
    if as_json:
        sys.stdout.write(f"{msgspec.json.encode(compared).decode()}\n")
        return
    show(tables(compared, str(events)))


def _read(path: Path, field: str, task: Task) -> tuple[list[str], list[str] | None, str]:
    """Return the texts, what is true of each where the file says it, and a sentence on what is doubtful, if any."""
    if field or not is_labelled(path):
        found = read_events(path, field)
        return found.texts, None, found.left_out(path, field)
    labelled = read_labelled(path, task)
    return [event.text for event in labelled], [event.label for event in labelled], contradictions(labelled, str(path))


def same_labels(a: Release, b: Release) -> list[int]:
    """Return where in B's probabilities each label of A stands.

    Raises:
        InputError: they do not have the same labels.
    """
    mine, theirs = a.task.label_names, b.task.label_names
    apart = [
        f"only {release.title} has {', '.join(f'`{name}`' for name in names)}"
        for release, names in ((a, sorted(set(mine) - set(theirs))), (b, sorted(set(theirs) - set(mine))))
        if names
    ]
    if apart:
        raise InputError(f"{a.title} and {b.title} answer different questions: {'; '.join(apart)}; nothing to compare")
    return [theirs.index(name) for name in mine]
