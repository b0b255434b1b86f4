"""What `python -m bytewax.run edge.gateway` loads: a gateway, from its configuration to its exit code.

`bytewax.run` calls `flow()`. Instead of only returning a dataflow to it, `flow()` runs the gateway itself and exits,
because it needs what `bytewax.run` lacks: epochs shorter than a second, a recovery store that makes itself, a stop
that snapshots, and an intake and an operations server whose lives hang on the flow's.

The order of a start is a promise: configuration, state directory, model and policy are examined before the first
socket opens. The order of a stop as well: the intake commits what it accepted and leaves, the flow finishes what it
holds, the last epoch is committed. Being killed at any moment loses nothing either; it only repeats an epoch.
"""

import os
import sys
from pathlib import Path

# `bytewax.run` looks for modules in the working directory first, also where Python was told not to. What lies there may
# be evidence, so it is struck out again before anything else is imported; our own checkout may stay.
if sys.flags.safe_path and sys.path[0] == str(Path.cwd()) != str(Path(__file__).parent.parent):
    sys.path.pop(0)

import ssl
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import timedelta
from threading import Event, Lock
from time import time

import structlog
from bytewax.dataflow import Dataflow

from dataflows.cache.snapshot import Made
from dataflows.cache.verdict_cache import VerdictCache
from dataflows.connectors.spool import SpoolReader
from dataflows.connectors.spool_source import SpoolSource
from dataflows.operators.repeats import Repeats
from dataflows.running import logs
from dataflows.running.cache_files import audit_secret, keep, take_over, warm
from dataflows.running.disk_reserve import DiskReserve
from dataflows.running.meters import Meters
from dataflows.running.model import open_model
from dataflows.running.operations import OperationsServer
from dataflows.running.policy import policy_in_force, renew
from dataflows.running.pulse import Pulse, PulsingSource, unhealthy
from dataflows.running.recovery import RunOptions, run_options
from dataflows.running.service import Committing, Service, exit_code_of, ignore_until_open
from dataflows.running.state_lock import StateLock
from dataflows.triage import Outlet, triage
from edge.config import UPLINK, Config, config_path, read_config
from edge.control import ControlServer
from edge.examine import require_known_labels, require_sound
from edge.intake import spool_path
from edge.intake_child import IntakeChild
from edge.outputs import dead_letter_sink, outlets, uplink_sink
from edge.readings import readings
from edge.status import Status, StatusCollector, unready
from models.classifier import Classifier, Current
from models.contracts.errors import ConfigError
from models.contracts.policy import Policy

log = structlog.get_logger()


def flow() -> Dataflow:
    """Run the gateway of the configuration in force and exit: 0 stopped, 2 cannot start as configured, 1 otherwise."""
    logs.configure()
    raise SystemExit(exit_code_of(lambda: run(config_path(), run_options(sys.argv[1:], os.environ))))


def run(path: Path, options: RunOptions) -> int:
    """Run the gateway that `path` describes until a signal stops it; return its exit code.

    Raises:
        ConfigError: it cannot start as it is configured.
        UntrustedError: the model is not what was promised.
        UnavailableError: the disk does not let it start.
    """
    ignore_until_open()
    if options.process is not None:
        raise ConfigError(
            "bytewax.run: found -i and -a, wanted neither: a gateway is one process; to scale, run several gateways, "
            "each with its own configuration and state directory"
        )
    config = read_config(path)
    contexts = require_sound(config, path)
    with ExitStack() as opened:
        return Gateway(config, path, contexts, options, opened).run()


class Gateway:
    """Everything that one run has open; `opened` closes it, last things first."""

    def __init__(
        self,
        config: Config,
        path: Path,
        contexts: Mapping[str, ssl.SSLContext],
        options: RunOptions,
        opened: ExitStack,
    ) -> None:
        self._config = config
        self._path = path
        self._stop = Event()
        self._pulse = Pulse()
        self._meters = Meters(self._pulse.beat)
        state_dir = _state_dir(config)
        self._reserve = DiskReserve(state_dir)
        self._reserve.require_room()
        lock = StateLock(state_dir)
        opened.callback(lock.release)
        lock.acquire()
        self._committing = Committing.to(
            state_dir / "recovery", timedelta(milliseconds=config.gateway.epoch_ms), options
        )
        model = open_model(config.model)
        opened.callback(model.classifier.close)
        self._classifier: Current[Classifier] = Current(model.classifier)
        self._release_sha256 = model.sha256
        self._policy: Current[Policy] = Current(
            policy_in_force(config.policy, config.policy_file, model.classifier.release)
        )
        require_known_labels(config, path, model.classifier.release)
        self._secret = audit_secret(state_dir)
        self._cache = VerdictCache(self._secret)
        self._cache.follow(model.classifier.release, self._policy.get())
        warm(self._cache, state_dir, self._secret, self._made())
        self._control = ControlServer(state_dir, self._cache, self._classifier, self._policy)
        opened.callback(self._control.close)
        self._spool_path = spool_path(config)
        self._spool = SpoolReader(self._spool_path)
        self._spool_lock = Lock()
        opened.callback(self._spool.close)
        self._letters = dead_letter_sink(config, self._stop, self._meters)
        self._uplink = uplink_sink(config, contexts, self._stop, self._meters, self._letters)
        self._flow = self._lay_out(contexts)
        self._meters.registry.register(StatusCollector(self._status))
        self._operations = OperationsServer(
            config.operations.host,
            config.operations.port,
            self._meters.registry,
            lambda: unhealthy(self._pulse.idle_s()),
            lambda: unready(self._status()),
        )
        opened.callback(self._operations.close)
        self._intake = IntakeChild(path, lock.fileno())
        opened.callback(self._intake.stop)

    def run(self) -> int:
        """Serve until told to stop; return the exit code."""
        return Service(self, self._stop, self._pulse).run(self._flow, self._committing)

    def begin(self) -> None:
        self._operations.start()
        self._control.start()
        if self._uplink is not None:
            self._uplink.courier()  # it looks for the centre, and not only when the first event is there
        self._intake.start()
        take_over(self._cache, Path(self._config.gateway.state_dir))

    def announcement(self) -> str:
        return f"{self._classifier.get().release.title} listening" if self._intake.listening else ""

    def look(self) -> None:
        self._reserve.look()

    def let_go(self) -> None:
        self._intake.let_go()

    def make_room(self) -> None:
        self._reserve.give_up()

    def settle(self) -> None:
        self._control.close()
        # What is to be forgotten, and what a policy that no event has met yet makes worthless, is not kept.
        self._cache.follow(self._classifier.get().release, self._policy.get())
        keep(self._cache, Path(self._config.gateway.state_dir), self._secret, self._made())

    def _lay_out(self, contexts: Mapping[str, ssl.SSLContext]) -> Dataflow:
        config = self._config
        source = SpoolSource(
            self._spool_path,
            self._stop,
            batch_events=config.model.batch_events,
            batch_s=config.model.batch_ms / 1e3,
        )
        ways = outlets(config, contexts, self._stop, self._meters, self._letters)
        if config.uplink is not None and self._uplink is not None:
            ways.append(Outlet(UPLINK, self._uplink, config.uplink.routes))
        return triage(
            PulsingSource(source, self._pulse),
            self._classifier,
            self._policy,
            ways,
            self._letters,
            readings=readings(config),
            repeats=Repeats(window_events=config.repeats.window_events, window_s=config.repeats.window_s),
            cache=self._cache,
            window_events=config.model.batch_events,
            wait=self._stop.wait,
            observer=self._meters,
            centre_is_away=(lambda: False) if self._uplink is None else self._uplink.away,
        )

    def _made(self) -> Made:
        release, policy = self._classifier.get().release, self._policy.get()
        return Made.under(self._release_sha256, release, self._config.model.context_tokens, policy.cache)

    def _status(self) -> Status:
        with self._spool_lock:
            spool = self._spool.status()
        oldest_ms = spool.oldest_received_at_ms
        return Status(
            release=self._classifier.get().release.title,
            release_sha256=self._release_sha256,
            policy=self._policy.get().number,
            flow_begun=self._pulse.begun.is_set(),
            idle_s=self._pulse.idle_s(),
            intake_listening=self._intake.listening,
            spool_bytes=spool.bytes,
            spool_max_bytes=self._config.spool.max_bytes,
            spool_full=spool.refusing,
            queue_age_s=0.0 if oldest_ms is None else max(0.0, time() - oldest_ms / 1e3),
            events=spool.counters.events,
            losses=spool.counters.losses,
            incidents=spool.counters.incidents,
            cache_entries=len(self._cache),
            cache=dict(self._cache.counts),
        )

    def reload(self) -> None:
        """Read the policy again, and nothing else."""
        renew(self._policy, self._read_policy)

    def _read_policy(self) -> Policy:
        config = read_config(self._path)
        policy = policy_in_force(config.policy, config.policy_file, self._classifier.get().release)
        changed = _changed(self._config, config)
        if changed:
            log.warning("restart_needed", changed=changed, action="went on without; only the policy is read again")
        return policy


def _state_dir(config: Config) -> Path:
    directory = Path(config.gateway.state_dir)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"`gateway.state_dir`: {directory} cannot be made: {error.strerror}; give a directory that we may write"
        ) from error
    return directory


def _changed(before: Config, now: Config) -> list[str]:
    """Return the keys that differ and that nobody reads again while the gateway runs."""
    read_again = ("policy", "policy_file")
    return [
        key for key in Config.__struct_fields__ if key not in read_again and getattr(before, key) != getattr(now, key)
    ]
