"""A flow as a process: it runs until a signal stops it, stops within the promised time, and exits with what that says.

Being killed at any moment loses nothing; it only repeats an epoch. A stop by SIGTERM or SIGINT snapshots first: what
accepts from outside commits what it has and leaves, the flow finishes what it holds, the last epoch is committed.
"""

import os
import select
import signal
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from threading import Event, Thread
from time import monotonic, sleep
from typing import Protocol

import structlog
from bytewax.dataflow import Dataflow
from bytewax.errors import BytewaxRuntimeError
from bytewax.recovery import RecoveryConfig
from bytewax.run import cli_main
from msgspec import Struct

from dataflows.running.notify import Watchdog, notify
from dataflows.running.pulse import Pulse, unhealthy
from dataflows.running.recovery import RunOptions, recovery_config
from models.contracts.errors import ConfigError, HeadwaterError, UnavailableError, UntrustedError

_STOP_WITHIN_S = 4.0  # of the 5 that we promise: to be gone takes the kernel up to half a second on a busy machine
_TICK_S = 0.25

log = structlog.get_logger()


class Served(Protocol):
    """What runs as a service; all but `begin` and `settle` is called by another thread than the flow's."""

    def begin(self) -> None:
        """Open what lets events in. Called right before the flow runs.

        Raises:
            ConfigError, UnavailableError: it cannot be opened.
        """

    def announcement(self) -> str:
        """Return what is served once events can come; nothing before."""

    def look(self) -> None:
        """Do what is to be done several times a second."""

    def reload(self) -> None:
        """Read again what may change while we run: SIGHUP."""

    def let_go(self) -> None:
        """Let no more events in: we are to stop."""

    def make_room(self) -> None:
        """Give up what was put aside on the disk: the recovery store found none."""

    def settle(self) -> None:
        """Keep what the next start wants to find; called after a stop whose last epoch is committed."""


class Committing(Struct, frozen=True, kw_only=True):
    """How often the flow commits, and where."""

    epoch: timedelta
    directory: Path
    store: RecoveryConfig
    process: int | None  # our number in a cluster
    addresses: tuple[str, ...]

    @classmethod
    def to(cls, directory: Path, epoch: timedelta, options: RunOptions, *, partitions: int = 1) -> "Committing":
        """Return what was asked of `bytewax.run`, and where it was not asked, what is given here.

        Raises:
            ConfigError: the recovery store cannot be made.
        """
        directory = options.recovery_dir or directory
        return cls(
            epoch=options.epoch if options.epoch is not None else epoch,
            directory=directory,
            store=recovery_config(directory, options.backup, partitions),
            process=options.process,
            addresses=options.addresses,
        )


def exit_code_of(run: Callable[[], int]) -> int:
    """Run, say in words what does not let it, and return the code: 2 cannot start as configured, 1 otherwise."""
    try:
        return run()
    except (ConfigError, UntrustedError) as error:
        sys.stderr.write(f"headwater: {error}\n")
        return 2
    except HeadwaterError as error:
        sys.stderr.write(f"headwater: {error}\n")
        return 1


def ignore_until_open() -> None:
    """Let a stop simply be an exit until something is open; and there is nothing to read again yet."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))


class Service:
    """One run of one flow."""

    def __init__(self, served: Served, stop: Event, pulse: Pulse) -> None:
        """`stop` is set when we are told to stop, and ends the flow; `pulse` beats as long as it takes turns."""
        self._served = served
        self._stop = stop
        self._pulse = pulse
        self._stopped = Event()
        self._code = 0

    def run(self, flow: Dataflow, committing: Committing) -> int:
        """Serve until told to stop; return the exit code: 2 where it cannot go on as configured, 1 where it failed."""
        # Python runs handlers in this thread, and only once it is back from the model, which may take seconds for one
        # event. The number of a signal is in the pipe at once.
        signals, raised = os.pipe()
        os.set_blocking(raised, False)
        signal.set_wakeup_fd(raised, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        Thread(target=self._obey, args=(signals,), name="control", daemon=True).start()
        failure: BaseException | None = None
        try:
            self._served.begin()
            failure = self._run(flow, committing)
        except (ConfigError, UnavailableError):
            if not self._stop.is_set():  # told to stop, it does not get to begin
                raise
        finally:
            self._stopped.set()
        self._code = self._outcome(failure)
        return self._code

    def _run(self, flow: Dataflow, committing: Committing) -> BaseException | None:
        try:
            cli_main(
                flow,
                workers_per_process=1,
                process_id=committing.process,
                addresses=list(committing.addresses) or None,
                epoch_interval=committing.epoch,
                recovery_config=committing.store,
            )
        except BytewaxRuntimeError as error:
            return _root_cause(error)
        except BaseException as error:
            if "routing map" in str(error):
                raise ConfigError(
                    f"recovery store {committing.directory}: {error}; a source or a sink that it knows is gone: put "
                    "it back, or move the store away and begin anew"
                ) from error
            if type(error).__name__ == "PanicException" and committing.addresses:  # a line to a peer has broken
                return UnavailableError("another process of the cluster has ended; start all of them again")
            if not isinstance(error, RuntimeError) or "SqliteFailure" not in str(error):  # likewise a panic
                raise
            self._served.make_room()  # the next start needs it
            return UnavailableError(
                f"recovery store {committing.directory}: {error}; make room on its disk and look at its owner; "
                "the next start repeats the last epoch"
            )
        return None

    def _outcome(self, failure: BaseException | None) -> int:
        if failure is None and self._stop.is_set():
            self._served.settle()
            log.info("stopped")
            return 0
        if self._stop.is_set() and isinstance(failure, UnavailableError):
            log.warning("stopped_without_snapshot", reason=str(failure), action="the next start repeats the last epoch")
            return 0
        reason = "it ended and nobody told it to" if failure is None else f"{type(failure).__name__}: {failure}"
        log.error("flow_failed", reason=reason)
        return 2 if isinstance(failure, ConfigError) else 1

    def _obey(self, signals: int) -> None:
        """Carry out what signals ask for, and tell the service manager how we are."""
        watchdog = Watchdog()
        announced = False
        while True:
            if not announced and self._pulse.begun.is_set() and (words := self._served.announcement()):
                announced = notify("READY=1", f"STATUS={words}") or True
            if announced and not unhealthy(self._pulse.idle_s()):
                watchdog.feed()
            self._served.look()
            raised, _, _ = select.select([signals], [], [], _TICK_S)
            for number in os.read(signals, 64) if raised else b"":
                if number == signal.SIGHUP:
                    self._served.reload()
                elif number in (signal.SIGTERM, signal.SIGINT):
                    self._end(signal.Signals(number).name)
                    return

    def _end(self, name: str) -> None:
        """Stop in the promised order and time, whoever is slow."""
        log.info("stopping", signal=name)
        notify("STOPPING=1")
        self._served.let_go()
        self._stop.set()
        due = monotonic() + _STOP_WITHIN_S
        if not self._stopped.wait(_STOP_WITHIN_S):
            # A batch in a slow model, or a disk that hangs. What is not committed is repeated, as after any crash.
            log.warning(
                "stop_deadline_passed", after_s=_STOP_WITHIN_S, action="the last epoch is repeated at the next start"
            )
            os._exit(0)
        # The flow has ended and its epoch is committed. What is left is to close, which ends this thread with us; a
        # disk that hangs would keep us, and whoever we started, which nobody can kill while it waits for the disk.
        sleep(max(0.0, due - monotonic()))
        log.warning("close_deadline_passed", after_s=_STOP_WITHIN_S, action="left it to the system to close")
        os._exit(self._code)


def _root_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error
