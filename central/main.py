"""The command line of the centre: write a configuration, examine it, the bridge, the queue, the warehouse, replays."""

import logging
import sys
from datetime import UTC, datetime
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


@main.command()
@click.option("--kafka-port", type=click.IntRange(0, 65535), default=9092, show_default=True, help="0: a free one.")
@click.option("--mqtt-port", type=click.IntRange(0, 65535), default=1883, show_default=True, help="0: a free one.")
def servers(kafka_port: int, mqtt_port: int) -> None:
    """Run a Kafka and an MQTT broker on loopback, to try a centre out; they forget everything when they end.

    \b
    Example:
      python -m central servers
    """
    from central.servers import run  # noqa: PLC0415 - `--help` answers without loading a runtime

    run(kafka_port, mqtt_port, lambda words: click.echo(words, err=True))


@main.command()
@_of_centre
@click.option("--json", "as_json", is_flag=True, help="One JSON object per row.")
@click.argument("sql")
def ask(path: Path | None, sql: str, *, as_json: bool) -> None:
    """Ask the warehouse: SQL is one query of DuckDB's, which sees these views and changes nothing.

    `verdicts` has what stands, one row per event; `history` all that was said; `escalations` the gateway's doubtful
    verdict beside the centre's; `answers` what people said beside it. A terminal gets a table, a pipe lines with tabs.

    Exits 0 when it has answered, 1 where the query or the warehouse does not let it, 2 where the configuration cannot
    be used.

    \b
    Examples:
      python -m central ask "SELECT source, label, count(*) FROM verdicts GROUP BY ALL ORDER BY 3 DESC"
      python -m central ask "SELECT gateway, avg(changed::INT) FROM escalations GROUP BY gateway"
      python -m central ask --json "SELECT * FROM answers WHERE label <> model_label"
    """
    from central.ask import ask as ask_warehouse  # noqa: PLC0415 - `--help` answers without loading any of it
    from central.config import read_config  # noqa: PLC0415 - likewise
    from central.wiring import warehouse_url  # noqa: PLC0415 - likewise

    ask_warehouse(sql, warehouse_url(read_config(path or config_path())), as_json=as_json)


@main.command()
@_of_centre
def compact(path: Path | None) -> None:
    """Make one file of each day of the warehouse; run it once an hour, beside everything else.

    What does not fit into memory lies in the state directory meanwhile.

    \b
    Example:
      python -m central compact
    """
    from central.config import read_config  # noqa: PLC0415 - as above
    from central.warehouse.compaction import compact_all  # noqa: PLC0415 - as above
    from central.warehouse.storage import open_storage  # noqa: PLC0415 - as above
    from central.wiring import warehouse_url  # noqa: PLC0415 - as above

    config = read_config(path or config_path())
    state = Path(config.centre.state_dir)
    for done in compact_all(open_storage(warehouse_url(config)), scratch=state if state.is_dir() else None):
        click.echo(f"{done.table} of {done.day}: {done.files} files became one, of {done.rows} rows")


@main.command()
@_of_centre
@click.option("--reason", "reasons", multiple=True, help="Only with this reason; may be given again.")
@click.option("--source", "sources", multiple=True, help="Only of this source; may be given again.")
@click.option("--since", type=click.DateTime(), default=None, help="Only what was written since then, in UTC.")
@click.option("--limit", type=click.IntRange(1), default=None, help="At most so many.")
@click.option("--to", default="", metavar="TOPIC", help="All of them there, and not to where they came from.")
@click.option("--again", is_flag=True, help="Also those that were put back before.")
@click.option("--dry-run", is_flag=True, help="Only say what would be put back.")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path, exists=True, dir_okay=False))
def replay(
    *,
    path: Path | None,
    reasons: tuple[str, ...],
    sources: tuple[str, ...],
    since: datetime | None,
    limit: int | None,
    to: str,
    files: tuple[Path, ...],
    again: bool,
    dry_run: bool,
) -> None:
    """Put dead letters back where they came from, as they were: bytes, key and headers.

    Those of the topic or, where FILES are given, of JSON lines. Each is put back once; --again does so once more.

    Exits 0 when all that was meant is back, 1 where some could not be, 2 where the configuration cannot be used.

    \b
    Examples:
      python -m central replay --dry-run
      python -m central replay --reason not-a-verdict --since 2026-01-31
      python -m central replay dead-letters.jsonl --to headwater.events
    """
    from central.replay_command import replay_and_say  # noqa: PLC0415 - as above

    since_ms = 0 if since is None else int(since.replace(tzinfo=UTC).timestamp() * 1000)
    sys.exit(
        replay_and_say(
            path or config_path(),
            files=files,
            reasons=reasons,
            sources=sources,
            since_ms=since_ms,
            limit=limit,
            to=to,
            again=again,
            dry_run=dry_run,
        )
    )
