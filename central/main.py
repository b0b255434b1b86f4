"""The command line of the centre: write a configuration, examine it, the bridge, the queue, the warehouse, replays."""

import logging
import sys
from pathlib import Path
from typing import Any

import click

from central.config import config_path
from dataflows.running import logs
from dataflows.running.commands import Commands

_of_centre = click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    help="[default: HEADWATER_CENTRAL, else ./central.toml]",
)


class _Centre(Commands):
    """Loads the commands of the queue when somebody wants them."""

    def list_commands(self, context: click.Context) -> list[str]:
        return sorted([*super().list_commands(context), "queue"])

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name != "queue":
            return super().get_command(context, name)
        from central.queue.command import queue_group  # noqa: PLC0415 - it brings SQLAlchemy

        return queue_group(_queue_settings)


def _queue_settings(path: Path | None) -> Any:
    from central.config import read_config  # noqa: PLC0415 - as above
    from central.queue.desk import QueueSettings  # noqa: PLC0415 - as above
    from central.wiring import cluster_of, queue_url  # noqa: PLC0415 - as above

    config = read_config(path or config_path())
    return QueueSettings(database=queue_url(config), cluster=cluster_of(config), prefix=config.kafka.prefix)


@click.group(cls=_Centre, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="headwater", prog_name="headwater")
def main() -> None:
    """What gateways doubt is answered, and verdicts arrive where people work.

    \b
    Examples:
      python -m central init && python -m central check --create
      python -m central bridge                        gateways' uplinks from MQTT to Kafka
      python -m bytewax.run central.triage            answer what gateways doubt
      python -m bytewax.run central.deliver           verdicts to queue, warehouse and the others
      python -m central queue
      python -m central ask "SELECT label, count(*) FROM verdicts GROUP BY label"
    """
    logs.configure(least=logging.WARNING)  # decisions are for the services' logs; here, what is printed says it


@main.command()
@click.option(
    "--path", type=click.Path(path_type=Path, dir_okay=False), default=Path("central.toml"), show_default=True
)
@click.option("--force", is_flag=True, help="Overwrite what is there.")
def init(path: Path, *, force: bool) -> None:
    """Write a commented configuration with defaults that work.

    Kafka and an MQTT broker on loopback, the shipped model by its SHA-256, queue and warehouse in the state directory.

    \b
    Examples:
      python -m central init
      python -m central init --path /etc/headwater/central.toml
    """
    from central.init import write_config  # noqa: PLC0415 - `--help` answers without loading a runtime

    write_config(path, force=force)
    click.echo(f"wrote {path}; next: python -m central check --create{'' if path == config_path() else f' {path}'}")


@main.command()
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False), required=False)
@click.option("--create", is_flag=True, help="Make the topics that are not there.")
@click.option("--grow", is_flag=True, help="With --create: give topics more partitions, where more are configured.")
def check(path: Path | None, *, create: bool, grow: bool) -> None:
    """Examine configuration, model, brokers, topics, queue, warehouse and index; say in words what to do.

    Exits 0 where everything works, 1 where something does not, 2 where PATH itself cannot be used.

    \b
    Examples:
      python -m central check
      python -m central check --create
      python -m central check /etc/headwater/central.toml
    """
    from central.check import report  # noqa: PLC0415 - as above

    if grow and not create:
        raise click.UsageError("`--grow` goes with `--create`")
    sys.exit(report(path or config_path(), create=create, grow=grow))


@main.command()
@_of_centre
def bridge(path: Path | None) -> None:
    """Carry gateways' verdicts from MQTT to Kafka, and the centre's back, until told to stop.

    It remembers nothing: gateways keep what Kafka does not have yet, and ask for what they have not got. Several may
    run, each with a `mqtt.client_id` of its own. Exits 0 on SIGTERM.

    \b
    Examples:
      python -m central bridge
      python -m central bridge --config /etc/headwater/central.toml
    """
    from central.bridge import run  # noqa: PLC0415 - `--help` answers without loading any of it
    from central.config import read_config  # noqa: PLC0415 - likewise
    from central.wiring import bridge_of  # noqa: PLC0415 - likewise

    logs.configure()
    sys.exit(run(bridge_of(read_config(path or config_path()))))


@main.command()
def demo() -> None:
    """Run two gateways, a broker, Kafka and the centre on free loopback ports, and count what became of every event.

    Lines of the shipped sample go through both gateways; what they doubt is answered by the centre and comes back. Ends
    by itself within minutes; the last line says how many were lost or doubled. Exits 1 unless that is none.

    \b
    Example:
      python -m central demo
    """
    from central.demo import run  # noqa: PLC0415 - `--help` answers without loading a runtime

    sys.exit(run())
