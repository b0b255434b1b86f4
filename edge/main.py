"""The command line of a gateway: write a configuration, examine it, classify files, look into its cache, a demo."""

import logging
import sys
from pathlib import Path
from typing import Literal

import click

from dataflows.running import logs
from dataflows.running.commands import Commands, ListByDefault
from edge.config import config_path

# Looked up here and not asked of `models.release_file`, which loads a runtime.
_RELEASES = Path(__file__).parent.parent / "models" / "releases"
_SHIPPED = ", ".join(sorted(path.stem for path in _RELEASES.glob("*.gguf")))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="headwater", prog_name="headwater")
def main() -> None:
    """A verdict for every event, at the gateway where it happens.

    \b
    Examples:
      python -m edge init && python -m edge check
      python -m bytewax.run edge.gateway             run the gateway of ./edge.toml
      python -m edge classify /var/log/auth.log
      python -m edge cache
      python -m edge demo
    """
    logs.configure(least=logging.WARNING)  # decisions are for the gateway's log; here, what is printed says it


@main.command()
@click.option("--path", type=click.Path(path_type=Path, dir_okay=False), default=Path("edge.toml"), show_default=True)
@click.option("--force", is_flag=True, help="Overwrite what is there.")
def init(path: Path, *, force: bool) -> None:
    """Write a commented configuration with defaults that work.

    Syslog on UDP and TCP port 5514 of loopback, the shipped model by its SHA-256, verdicts to verdicts.jsonl.

    \b
    Examples:
      python -m edge init
      python -m edge init --path /etc/headwater/edge.toml
    """
    from edge.init import write_config  # noqa: PLC0415 - `--help` answers without loading a runtime

    write_config(path, force=force)
    click.echo(f"wrote {path}; next: python -m edge check{'' if path == config_path() else f' {path}'}")


@main.command()
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False), required=False)
def check(path: Path | None) -> None:
    """Examine configuration, model, disk, ports, certificates and brokers; say in words what to do.

    Exits 0 where everything works, 1 where something does not, 2 where PATH itself cannot be used.

    \b
    Examples:
      python -m edge check
      python -m edge check /etc/headwater/edge.toml
    """
    from edge.check import report  # noqa: PLC0415 - `--help` answers without loading a runtime

    sys.exit(report(path or config_path()))


@main.command(epilog=f"\b\nShipped releases: {_SHIPPED}")  # of its own, since a name is no word to be wrapped
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--jsonl", "field", metavar="FIELD", default="", help="Lines are JSON; `a.b.c` is the path to the text.")
@click.option("--release", default="soc-triage", show_default=True, help="A shipped release's name, or a GGUF's path.")
@click.option("--task", default="", metavar="FILE", help="A task file, for an instruct model that carries no release.")
@click.option("--threads", type=click.IntRange(0, 256), default=0, help="0: one per core, at most two.")
def classify(files: tuple[str, ...], field: str, release: str, task: str, threads: int) -> None:
    """Write one JSON line per line of each FILE (`-`: standard input), in input order.

    A line becomes a verdict with id, text, label, confidence, probabilities, label_mass, fields, route, release and
    policy; a line without text (empty, or not the JSON that --jsonl asks for) becomes a dead letter with id and
    reason in its place. So the nth line of output always answers the nth line of input. Ids are the same in every run
    over the same files.

    Exits 0 when every line was answered, 1 when a file could not be read to its end or standard output took no more,
    2 for what cannot start.

    \b
    Examples:
      python -m edge classify /var/log/auth.log > verdicts.jsonl
      journalctl -o cat | python -m edge classify -
      python -m edge classify --jsonl message events.jsonl
      python -m edge classify --release ./qwen2.5-0.5b-q4_0.gguf --task tasks/support.toml tickets.txt
    """
    from edge.classify import Job, classify_files  # noqa: PLC0415 - `--help` answers without loading a runtime

    sys.exit(classify_files(Job(files=files, text_path=field, release=release, task=task, threads=threads)))


_of_gateway = click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="PATH",
    help="Of the gateway that is meant; without it $HEADWATER_CONFIG, else ./edge.toml.",
)


@main.group(cls=ListByDefault)
def cache() -> None:
    """Look into the verdict cache of a gateway: what it answers, why it does, and how to make it forget.

    Asks the running gateway through a socket in its state directory, as its user or as root. Where none runs, it reads
    what the last graceful stop kept.

    \b
    Examples:
      python -m edge cache                           the same as `cache list`
      python -m edge cache --refused
      python -m edge cache explain 'sshd[7]: Failed password for root from 203.0.113.9 port 51234 ssh2'
      python -m edge cache forget 3fa1c9d2e07b
    """


@cache.command("list")
@_of_gateway
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="At most so many.")
@click.option(
    "--sort",
    type=click.Choice(["hits", "age", "bound"]),
    default="hits",
    show_default=True,
    help="First come most hits, the oldest, or those whose hits are least proven to be right.",
)
@click.option("--refused", is_flag=True, help="Only templates that are never to answer, with the reason.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
def list_templates(
    path: Path | None, limit: int, sort: Literal["hits", "age", "bound"], *, refused: bool, as_json: bool
) -> None:
    """List templates with their label and its confidence, hits, age, audits and the last of them, and state.

    `wrong ≤` bounds the share of hits that are wrong, at 95 % confidence, by the audits so far. A template answers, is
    learning (so many different events of those that have to agree), has expired, is doubtful (not accepted, and
    the policy caches only what is), or is refused. A terminal gets a table, a pipe one line per template with tabs
    between its fields, and their names in the first.

    Exits 0 when it has listed, 1 where no gateway answers and none has kept a cache that can be read, 2 where the
    configuration cannot be used.

    \b
    Examples:
      python -m edge cache list --sort bound --limit 20
      python -m edge cache --json | jq -r 'select(.hits > 1000) | .template'
      python -m edge cache --refused --config /etc/headwater/edge.toml
    """
    from edge.cache_answers import List  # noqa: PLC0415 - `--help` answers without loading any of it
    from edge.cache_command import show_templates  # noqa: PLC0415 - likewise

    show_templates(path or config_path(), List(limit=limit, sort=sort, refused=refused), as_json=as_json)


@cache.command()
@_of_gateway
@click.option("--source", default="", metavar="NAME", help="Read it as this source does; without it, as plain text.")
@click.argument("event")
def explain(path: Path | None, event: str, source: str) -> None:
    """Say what is masked of EVENT, and which entry answers it and since when, or why none does.

    EVENT is one raw event as it arrives, header included; `-` reads it from standard input.

    Exits 0 when it has said so, 1 where no gateway answers and none has kept a cache that can be read, 2 where the
    configuration cannot be used.

    \b
    Examples:
      python -m edge cache explain 'Jan  2 03:04:05 web-1 sshd[7]: Failed password for root from 203.0.113.9 port 51234'
      tail -n 1 /var/log/auth.log | python -m edge cache explain -
      python -m edge cache explain --source devices '{"message": "door 7 opened"}'
    """
    from edge.cache_command import explain_event, read_event  # noqa: PLC0415 - as above

    explain_event(path or config_path(), read_event(event), source)


@cache.command()
@_of_gateway
@click.option("--all", "everything", is_flag=True, help="Every template, and every refusal.")
@click.argument("name", required=False, metavar="TEMPLATE_NAME")
def forget(path: Path | None, name: str | None, *, everything: bool) -> None:
    """Forget a template, so that the model is asked about its next events and it is learnt anew.

    TEMPLATE_NAME is what verdicts have in `cached`. A refused template that is forgotten may be learnt again. A running
    gateway forgets when it takes its next events; what it has said stays as it was.

    Exits 0 when it is done, 1 where there is no such template, or no gateway answers and none has kept a cache, 2 where
    the configuration cannot be used.

    \b
    Examples:
      python -m edge cache forget 3fa1c9d2e07b
      python -m edge cache forget --all
    """
    if bool(name) == everything:  # a name that is empty is a variable that is not set, and means nothing by it
        raise click.UsageError("give either the name of a template or `--all`")
    from edge.cache_command import forget as forget_templates  # noqa: PLC0415 - as above

    forget_templates(path or config_path(), None if everything else name)


@main.command()
def demo() -> None:
    """Run a real gateway on free loopback ports for lines of the shipped sample, and count what comes out.

    Syslog over TCP and UDP, and MQTT where a mosquitto is installed. Ends by itself within a minute; the last line
    says how many events went in, how many verdicts came out and how many were lost. Exits 1 unless that is none.

    \b
    Example:
      python -m edge demo
    """
    from edge.demo import run  # noqa: PLC0415 - `--help` answers without loading a runtime

    sys.exit(run())
