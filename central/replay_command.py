"""`python -m central replay`: what was put back, in words."""

from pathlib import Path
from typing import Any

import click

from central.config import read_config
from central.replay import Replay, replay
from central.wiring import cluster_of, names_of


def replay_and_say(path: Path, *, dry_run: bool, **wanted: Any) -> int:
    """Put dead letters back as `wanted`, say what became of them, and return the exit code.

    Raises:
        ConfigError: the configuration, a topic or a file cannot be used.
        UnavailableError: the brokers are away, or another replay was begun.
    """
    config = read_config(path)
    done = replay(Replay(cluster=cluster_of(config), names=names_of(config), dry_run=dry_run, **wanted))
    verb = "would be put back" if dry_run else "put back"
    click.echo(f"{done.found} dead letters found, {done.before} of them put back before")
    for topic, records in sorted(done.back.items()):
        click.echo(f"{records} {verb} to {topic}")
    if done.recurred:
        click.echo(f"{done.recurred} of them are of records that came back as dead letters")
    for why, letters in sorted(done.stuck.items()):
        click.echo(f"{letters} left: {why}")
    if done.unread:
        click.echo(f"{done.unread} records are no dead letters")
    return 1 if done.stuck else 0
