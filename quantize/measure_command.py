"""`measure`: what a release scores on somebody's own labelled events."""

import sys
from pathlib import Path

import click
import msgspec

from quantize import options
from quantize.events import body_of
from quantize.labelled import contradictions, read_labelled
from quantize.progress import Progress
from quantize.terminal import Sentences, show


@click.command("measure", cls=Sentences)
@click.argument("release")
@click.option(
    "--events",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="JSON lines with `text` and `label`.",
)
@click.option("--group-by", default="", metavar="KEY", help="The key that says where an event is from.")
@options.task
@options.context_tokens
@click.option("--json", "as_json", is_flag=True, help="One JSON object in place of the tables.")
def measure_command(
    release: str, events: Path, group_by: str, task: str, *, context_tokens: int, as_json: bool
) -> None:
    """Measure RELEASE, a shipped release's name or a GGUF's path, on labelled events.

    Says how often it is right, by label and, with --group-by, by source; how far its confidence is to be believed; how
    right it is about fields, where the file has `fields`; and what its first policy would accept. Each line is asked
    about as a gateway asks: without the header. Intervals count events that nearly repeat one another as one, and with
    --group-by those of one source.

    Exits 0 when it was measured, 2 when the release or the file cannot be used.

    \b
    Examples:
      python -m quantize measure soc-triage --events labelled.jsonl
      python -m quantize measure soc-triage --events labelled.jsonl --group-by product
      python -m quantize measure build/releases/mine-4.gguf --events labelled.jsonl --json > figures.json
      python -m quantize measure instruct.gguf --task task.toml --context-tokens 2048 --events labelled.jsonl
    """
    from quantize import ask  # noqa: PLC0415 - `--help` answers without loading a runtime
    from quantize.measured import measured, tables  # noqa: PLC0415
    from quantize.named_release import named_release  # noqa: PLC0415

    path, found = named_release(release, task)
    truth = read_labelled(events, found.task, group_by)
    fields = any(event.fields for event in truth)
    with (
        Progress() as progress,
        ask.Asked(path, found, fields=fields, context_tokens=context_tokens) as classifier,
    ):
        if doubt := contradictions(truth, str(events)):
            progress.tell(doubt)
        answers = ask.answers_of(classifier, [body_of(event.text) for event in truth], progress.bar(found.title))
    figures = measured(found, truth, answers, by_source=bool(group_by))
    if as_json:
        sys.stdout.write(f"{msgspec.json.encode(figures).decode()}\n")
        return
    show(tables(figures, str(events)))
