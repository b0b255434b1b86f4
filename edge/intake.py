"""The process that listens: every source into the spool, and nothing else, so that no model can make it deaf.

`python -m edge.intake CONFIG --lifeline FD` is started by the gateway. It prints one line of JSON when everything
listens, or why nothing does, and ends when its lifeline does: it then reads no more, commits what it has read and
exits 0. Ports and file descriptors are free again after that, or after a kill.
"""

import argparse
import contextlib
import json
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import structlog

from dataflows.connectors.files import FileTail, FileTailSource
from dataflows.connectors.group_commit import GroupCommit
from dataflows.connectors.spool import Spool
from dataflows.connectors.stdin import StandardInputReader
from dataflows.connectors.syslog import TcpListeners, TcpSource, UdpListener, UdpSource
from dataflows.connectors.tls import client_context, server_context
from dataflows.running import logs
from dataflows.sections import read_password
from edge import config as cfg
from models.contracts.errors import ConfigError, HeadwaterError

SPOOL_FILE = "spool.sqlite3"
_ENVELOPE_MAX_BYTES = 64 << 10

log = structlog.get_logger()


def spool_path(config: cfg.Config) -> Path:
    """Where the intake writes and the flow reads."""
    return Path(config.gateway.state_dir) / SPOOL_FILE


class _Part(Protocol):
    def start(self) -> None: ...

    def stop(self) -> None: ...


class Intake:
    """Every configured source, the group commit and the spool, as one thing that starts and stops."""

    def __init__(self, config: cfg.Config) -> None:
        """Open the spool and bind every port; nothing is read yet.

        Raises:
            ConfigError: a source or the state directory cannot work as configured.
            UnavailableError: the spool cannot be opened.
        """
        path = spool_path(config)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"`gateway.state_dir` {path.parent}: cannot be made: {error}; change it") from error
        self._spool = Spool(path, config.spool.max_bytes)
        self._commit = GroupCommit(self._spool)
        self.listening: dict[str, int] = {}
        self._starts: list[Callable[[], None]] = []
        self._stops: list[Callable[[], None]] = []
        self._closes: list[Callable[[], None]] = []  # after the last commit, which they acknowledge
        streams: list[TcpSource] = []
        for source in config.sources:
            match source:
                case cfg.SyslogUdp():
                    self._add_udp(source)
                case cfg.SyslogTcp():
                    streams.append(_stream(source))
                case cfg.FileTail():
                    self._add(FileTail(_tail(source), self._commit, self._spool.mark(source.name)))
                case cfg.Mqtt():
                    self._add_subscriber(source, config.gateway.name)
                case cfg.StandardInput():
                    self._add(StandardInputReader(source.name, source.max_event_bytes, self._commit))
        if config.uplink is not None:
            self._add_answers(config, config.uplink)
        if streams:
            listeners = TcpListeners(streams, self._commit)
            self.listening |= listeners.ports
            self._starts.append(listeners.start)
            self._stops.append(listeners.stop)

    def start(self) -> None:
        self._commit.start()
        for start in self._starts:
            start()

    def stop(self) -> None:
        """Read no more, commit what was read, close."""
        for stop in self._stops:
            stop()
        self._commit.close()
        for close in self._closes:
            close()

    def _add_udp(self, source: cfg.SyslogUdp) -> None:
        listener = UdpListener(
            UdpSource(
                name=source.name,
                host=source.host,
                port=source.port,
                max_event_bytes=source.max_event_bytes,
                receive_buffer_bytes=source.receive_buffer_bytes,
            ),
            self._commit,
        )
        self.listening[source.name] = listener.port
        self._add(listener)

    def _add_subscriber(self, source: cfg.Mqtt, gateway: str) -> None:
        # Paho costs a few megabytes, which a gateway without MQTT saves.
        from dataflows.connectors.mqtt import MqttSource, MqttSubscriber, check_topics  # noqa: PLC0415

        where = f"source `{source.name}`"
        check_topics(where, source.topics)
        tls = source.tls
        subscriber = MqttSubscriber(
            MqttSource(
                name=source.name,
                host=source.host,
                port=source.port,
                topics=source.topics,
                client_id=cfg.client_id(gateway, source),
                # An envelope is longer than the text in it; the flow cuts the text.
                max_payload_bytes=max(source.max_event_bytes, _ENVELOPE_MAX_BYTES)
                if source.text_path
                else source.max_event_bytes,
                receive_maximum=source.receive_maximum,
                session_expiry_s=source.session_expiry_s,
                tls=None if tls is None else client_context(where, tls.ca, tls.certificate, tls.key),
                username=source.username,
                password=read_password(where, source.password_file),
            ),
            self._commit,
            self._spool.mark(source.name),
            self._spool.receipts(source.name),
        )
        self._add(subscriber)
        self._closes.append(subscriber.close)

    def _add_answers(self, config: cfg.Config, uplink: cfg.Uplink) -> None:
        # As above.
        from dataflows.connectors.mqtt_answers import AnswersFetcher  # noqa: PLC0415
        from edge.uplink import downward  # noqa: PLC0415

        tls = uplink.tls
        context = None if tls is None else client_context("`uplink`", tls.ca, tls.certificate, tls.key)
        fetcher = AnswersFetcher(downward(config, uplink, context), self._commit, self._spool.mark(cfg.ANSWERS))
        self._add(fetcher)
        self._closes.append(fetcher.close)

    def _add(self, part: _Part) -> None:
        self._starts.append(part.start)
        self._stops.append(part.stop)


def _stream(source: cfg.SyslogTcp) -> TcpSource:
    tls = source.tls
    return TcpSource(
        name=source.name,
        host=source.host,
        port=source.port,
        max_event_bytes=source.max_event_bytes,
        max_connections=source.max_connections,
        idle_timeout_s=source.idle_timeout_s,
        tls=None if tls is None else server_context(f"source `{source.name}`", tls.certificate, tls.key, tls.client_ca),
    )


def _tail(source: cfg.FileTail) -> FileTailSource:
    return FileTailSource(
        name=source.name,
        path=source.path,
        max_event_bytes=source.max_event_bytes,
        from_start=source.from_start,
        poll_interval_s=source.poll_interval_s,
    )


def main(arguments: Sequence[str]) -> int:
    """Listen until the lifeline ends, or SIGTERM; 2 where the configuration cannot work, 1 where the disk fails."""
    parser = argparse.ArgumentParser(prog="python -m edge.intake", description="Receive events into the spool.")
    parser.add_argument("config", type=Path, help="the gateway's configuration")
    parser.add_argument("--lifeline", type=int, default=None, metavar="FD", help="end when this pipe does")
    options = parser.parse_args(arguments)
    # Control-C and a hang-up reach the whole terminal's group; the gateway decides when we end.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGTERM, lambda *_: None)  # the wake-up is all there is to do
    logs.configure()
    try:
        intake = Intake(cfg.read_config(options.config))
    except ConfigError as error:
        _announce(ready=False, kind="config", error=str(error))
        return 2
    except HeadwaterError as error:
        _announce(ready=False, kind="unavailable", error=str(error))
        return 1
    failed = threading.Event()

    def give_up(died: threading.ExceptHookArgs) -> None:
        """A thread that dies leaves us deaf on one ear; whoever started us starts us again."""
        log.error("thread_died", thread=died.thread and died.thread.name, reason=repr(died.exc_value))
        failed.set()
        os.write(wake, b"!")

    threading.excepthook = give_up
    intake.start()
    _announce(ready=True, listening=intake.listening)
    select.select([fd for fd in (woken, options.lifeline) if fd is not None], [], [])
    intake.stop()
    return 1 if failed.is_set() else 0


def _announce(**what: object) -> None:
    """Print the one line; a gateway that is gone already shows in the lifeline, not here."""
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(json.dumps(what) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
