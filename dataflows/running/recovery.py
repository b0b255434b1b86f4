"""Where the flow remembers how far it came, and what `bytewax.run` was told about that."""

import argparse
import fcntl
import os
import shutil
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path

from bytewax.recovery import RecoveryConfig, init_db_dir
from msgspec import Struct

from models.contracts.errors import ConfigError

_ENVIRONMENT = {
    "recovery_directory": "BYTEWAX_RECOVERY_DIRECTORY",
    "snapshot_interval": "BYTEWAX_SNAPSHOT_INTERVAL",
    "backup_interval": "BYTEWAX_RECOVERY_BACKUP_INTERVAL",
    "workers_per_process": "BYTEWAX_WORKERS_PER_PROCESS",
    "process_id": "BYTEWAX_PROCESS_ID",
    "addresses": "BYTEWAX_ADDRESSES",
}


class RunOptions(Struct, frozen=True, kw_only=True):
    """What `bytewax.run` was given; None: ours to choose."""

    recovery_dir: Path | None = None
    epoch: timedelta | None = None
    backup: timedelta = timedelta(0)
    process: int | None = None  # our number in a cluster; None outside of one
    addresses: tuple[str, ...] = ()  # of the processes of the cluster, ours too


def run_options(arguments: Sequence[str], environment: Mapping[str, str]) -> RunOptions:
    """Read the options of `bytewax.run`, which has checked them and keeps them to itself.

    Raises:
        ConfigError: they ask for more than one worker in a process, or for half of a cluster.
    """
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("-r", "--recovery-directory")
    parser.add_argument("-s", "--snapshot-interval")
    parser.add_argument("-b", "--backup-interval")
    parser.add_argument("-w", "--workers-per-process")
    parser.add_argument("-i", "--process-id")
    parser.add_argument("-a", "--addresses")
    given = vars(parser.parse_known_args(arguments)[0])
    found = {name: given[name] or environment.get(variable) for name, variable in _ENVIRONMENT.items()}
    # Inference stays on the source's worker and the model's own threads use the cores: more workers would only wait.
    if found["workers_per_process"] not in {None, "1"}:
        raise ConfigError(
            f"bytewax.run: found -w {found['workers_per_process']}, wanted 1: a process is one worker; to scale, run "
            "several"
        )
    process, addresses = found["process_id"], tuple(filter(None, (found["addresses"] or "").split(";")))
    if (process is None) != (not addresses) or (process is not None and not 0 <= int(process) < len(addresses)):
        raise ConfigError(
            f"bytewax.run: found -i {process} and {len(addresses)} addresses in -a, wanted both, and a lower number"
        )
    directory, epoch, backup = found["recovery_directory"], found["snapshot_interval"], found["backup_interval"]
    return RunOptions(
        recovery_dir=Path(directory) if directory else None,
        epoch=timedelta(seconds=int(epoch)) if epoch else None,
        backup=timedelta(seconds=int(backup)) if backup else timedelta(0),
        process=int(process) if process is not None else None,
        addresses=addresses,
    )


def recovery_config(directory: Path, backup: timedelta, partitions: int = 1) -> RecoveryConfig:
    """Return the recovery store in `directory`, made on first use; the number of its partitions can never change.

    Raises:
        ConfigError: it cannot be made.
    """
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        place = os.open(directory.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(place, fcntl.LOCK_EX)  # the processes of a cluster start at once
            if not any(directory.glob("part-*.sqlite3")):
                _make(directory, partitions)
        finally:
            os.close(place)
    except OSError as error:
        raise ConfigError(
            f"recovery store {directory}: cannot be made: {error}; look at the directory, its owner and the disk"
        ) from error
    return RecoveryConfig(str(directory), backup)


def _make(directory: Path, partitions: int) -> None:
    """Make the store beside its place and rename it, so that a crash leaves a whole one or none."""
    fresh = directory.with_name(f"{directory.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    init_db_dir(fresh, partitions)
    if directory.exists():
        directory.rmdir()  # empty, or it is not ours to replace
    fresh.rename(directory)
