"""What every flow of the centre has as a process: a state directory that is its own, a lock, metrics, commits."""

from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from threading import Event

import structlog
from bytewax.dataflow import Dataflow

from central.config import Config
from dataflows.connectors.backlog import held
from dataflows.connectors.courier import LANES
from dataflows.running.disk_reserve import DiskReserve
from dataflows.running.meters import Meters
from dataflows.running.operations import OperationsServer
from dataflows.running.pulse import Pulse, unhealthy
from dataflows.running.recovery import RunOptions
from dataflows.running.service import Committing, Service
from dataflows.running.state_lock import StateLock
from dataflows.sections import Operations
from models.contracts.errors import ConfigError, UnavailableError

_RECOVERY_PARTITIONS = 4  # of a store that the processes of a cluster share; the number can never change

log = structlog.get_logger()


class FlowProcess:
    """One process of one flow. Those of a cluster share the recovery store; all else in the directory is one's own."""

    def __init__(
        self, name: str, config: Config, operations: Operations, options: RunOptions, opened: ExitStack
    ) -> None:
        """Open what every flow has.

        Raises:
            ConfigError: it cannot be opened as configured.
            UnavailableError: it cannot be opened now.
        """
        self.options = options
        self.stop = Event()
        self.pulse = Pulse()
        self.meters = Meters(self.pulse.beat)
        self._name = name
        folder = Path(config.centre.state_dir) / name
        # The same outside of a cluster, so that one can be made of it later.
        self.state_dir = folder / f"process-{options.process or 0}"
        _make(self.state_dir)
        self._reserve = DiskReserve(self.state_dir)
        self._reserve.require_room()
        lock = StateLock(self.state_dir)
        opened.callback(lock.release)
        lock.acquire()
        _require_nothing_left(folder, self.processes)
        _require_same_slots(folder / "slots", config.kafka.slots)
        self._committing = Committing.to(
            folder / "recovery",
            timedelta(milliseconds=config.centre.epoch_ms),
            options,
            partitions=_RECOVERY_PARTITIONS,
        )
        # Those of a cluster on one machine would ask for one port: each has its number behind that of the first.
        port = operations.port + (options.process or 0) if operations.port else 0
        self._operations = OperationsServer(
            operations.host, port, self.meters.registry, lambda: unhealthy(self.pulse.idle_s()), self.unready
        )
        opened.callback(self._operations.close)

    @property
    def process(self) -> int:
        """Our number in a cluster; 0 outside of one."""
        return self.options.process or 0

    @property
    def processes(self) -> int:
        return max(1, len(self.options.addresses))

    @property
    def lane(self) -> str:
        """Which of the sinks' partitions we write to."""
        return str(self.process % LANES)

    def run(self, flow: Dataflow) -> int:
        """Serve until told to stop; return the exit code."""
        return Service(self, self.stop, self.pulse).run(flow, self._committing)

    def unready(self) -> list[str]:
        """Say why events should go elsewhere for now."""
        reasons = unhealthy(self.pulse.idle_s())
        return reasons if self.pulse.begun.is_set() else [*reasons, "the flow has not begun"]

    def begin(self) -> None:
        self._operations.start()

    def announcement(self) -> str:
        return f"{self._name} runs"

    def look(self) -> None:
        self._reserve.look()

    def reload(self) -> None:
        log.info("nothing_to_reload", flow=self._name)

    def let_go(self) -> None:
        """Nothing: whoever we read from keeps what we do not take."""

    def make_room(self) -> None:
        self._reserve.give_up()

    def settle(self) -> None:
        """Nothing: what is committed is all there is to keep."""


def _require_same_slots(path: Path, slots: int) -> None:
    """Note by how many slots topics are read, and refuse another number: offsets are remembered by slot.

    Raises:
        ConfigError: it is another one.
        UnavailableError: the disk does not let us.
    """
    try:
        found = path.read_text(encoding="ascii") if path.exists() else ""
        if not found:
            path.write_text(str(slots), encoding="ascii")
    except OSError as error:
        raise UnavailableError(f"{path}: cannot be read or written: {error.strerror}") from error
    if found not in ("", str(slots)):
        raise ConfigError(
            f"`kafka.slots`: found {slots}, and {path.parent} remembers offsets of {found}; put {found} back"
        )


def _require_nothing_left(folder: Path, processes: int) -> None:
    """Refuse to run with fewer processes while those that are no more have something to deliver.

    Raises:
        ConfigError: which, and what to do.
        UnavailableError: a backlog cannot be read.
    """
    for directory in sorted(folder.glob("process-*")):
        number = directory.name.removeprefix("process-")
        if not number.isdecimal() or int(number) < processes:
            continue
        for backlog in sorted(directory.glob("backlog/*.sqlite3")):
            if held(backlog):
                raise ConfigError(
                    f"{backlog}: found payloads of a process that is no more, with {processes} processes; start as "
                    f"many as before, {int(number) + 1} at least, until it is delivered"
                )


def _make(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"`centre.state_dir`: {directory} cannot be made: {error.strerror}; give a directory that we may write"
        ) from error
