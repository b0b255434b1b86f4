"""The command line of a gateway: write a configuration, examine it, classify files, show it all at work."""

import logging
import os
import sys
from pathlib import Path
from typing import Any

import click

from edge import logs
from edge.config import config_path
from models.contracts.errors import ConfigError, HeadwaterError, UntrustedError

# Looked up here and not asked of `models.release_file`, which loads a runtime.
_RELEASES = Path(__file__).parent.parent / "models" / "releases"
_SHIPPED = ", ".join(sorted(path.stem for path in _RELEASES.glob("*.gguf")))


class _Commands(click.Group):
    """Prints what an operator can mend as one sentence, without a traceback."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except (ConfigError, UntrustedError) as error:
            click.echo(f"headwater: {error}", err=True)
            context.exit(2)
        except HeadwaterError as error:
            click.echo(f"headwater: {error}", err=True)
            context.exit(1)
        except KeyboardInterrupt:
            context.exit(130)  # 128 + SIGINT, where click would say that it aborted and exit 1
        except BrokenPipeError:
            # Whoever read us has had enough. What is still buffered goes nowhere when the interpreter flushes it.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            context.exit(141)  # 128 + SIGPIPE, what `head` leaves behind in any shell


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="headwater", prog_name="headwater")
def main() -> None:
    """A verdict for every event, at the gateway where it happens.

    \b
    Examples:
      python -m edge init && python -m edge check
      python -m bytewax.run edge.gateway             run the gateway of ./edge.toml
      python -m edge classify /var/log/auth.log
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
