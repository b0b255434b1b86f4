"""Examines a gateway before it runs: everything that its configuration names, in words, with what to do."""

import errno
import os
import socket
import ssl
import stat
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import Literal

from dataflows.connectors.backlog import held
from dataflows.connectors.binding import remedy
from dataflows.connectors.files import kind_of
from dataflows.running.findings import Finding, show
from dataflows.running.model import open_model
from dataflows.running.policy import in_words, policy_in_force
from dataflows.running.state_lock import is_held
from edge.certificates import expiry, identities, load_all
from edge.config import (
    UPLINK,
    Config,
    FileTail,
    JsonLines,
    KafkaOutput,
    Mqtt,
    MqttOutput,
    Output,
    Source,
    SyslogOutput,
    dead_letters,
    read_config,
)
from edge.examine import listeners, require_known_labels, require_sound
from edge.knock import knock_broker, knock_siem
from edge.outputs import backlog_path
from models.contracts.errors import ConfigError, HeadwaterError, UnavailableError

_SOON = timedelta(days=30)


def report(path: Path) -> int:
    """Print what was found about the configuration at `path`; return the exit code.

    Raises:
        ConfigError: `path` itself cannot be used.
    """
    config = read_config(path)
    require_sound(config, path)
    findings = [Finding("config", "ok", f"{path}: sources {_names(config.sources)}; outputs {_names(config.outputs)}")]
    findings += examine(config, path, datetime.now(UTC))
    return show(findings)


def examine(config: Config, path: Path, now: datetime) -> Iterator[Finding]:
    """Yield what was found about the configuration at `path`, part by part; nothing that is running is disturbed."""
    yield from _model(config, path)
    yield from _disk(config)
    try:
        running = is_held(Path(config.gateway.state_dir))
    except ConfigError as error:
        running = False
        yield Finding("gateway", "problem", str(error))
    if running:
        yield Finding("gateway", "note", "runs on this state directory now; its ports are taken by itself")
    yield from _ports(config, running=running)
    yield from _certificates(config, now)
    yield from _far_ends(config)
    yield from _files(config)
    yield from _backlogs(config)


def _model(config: Config, path: Path) -> Iterator[Finding]:
    try:
        opened = open_model(config.model)
    except HeadwaterError as error:
        yield Finding("model", "problem", str(error))
        return
    release = opened.classifier.release
    opened.classifier.close()
    labels = ", ".join(release.task.label_names)
    yield Finding("model", "ok", f"{release.title} (sha256 {opened.sha256[:12]}…): {labels}")
    if not config.model.sha256:
        yield Finding("model", "note", f'its digest is not checked; set `model.sha256 = "{opened.sha256}"`')
    try:
        policy = policy_in_force(config.policy, config.policy_file, release)
    except ConfigError as error:
        yield Finding("policy", "problem", str(error))
    else:
        yield Finding("policy", "ok", in_words(policy))
    try:
        require_known_labels(config, path, release)
    except ConfigError as error:
        yield Finding("outputs", "problem", str(error))


def _disk(config: Config) -> Iterator[Finding]:
    directory = Path(config.gateway.state_dir).absolute()
    problem = _unwritable(directory)
    if problem:
        yield Finding("spool", "problem", f"{directory}: {problem}; mend it or change `gateway.state_dir`")
        return
    disk = os.statvfs(_existing(directory))
    free, wanted = disk.f_bavail * disk.f_frsize, config.spool.max_bytes
    if free < wanted:
        words = f"{directory}: {_mib(free)} free, `spool.max_bytes` may take {_mib(wanted)}; make room or lower it"
        yield Finding("spool", "problem", words)
    else:
        yield Finding("spool", "ok", f"{directory}: {_mib(free)} free, {_mib(wanted)} at the most")


def _ports(config: Config, *, running: bool) -> Iterator[Finding]:
    for where, protocol, host, port in listeners(config):
        kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
        try:
            family = socket.getaddrinfo(host, port, type=kind, flags=socket.AI_PASSIVE)[0][0]
            with socket.socket(family, kind) as probe:
                if protocol == "tcp":
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
        except OSError as error:
            if running and error.errno == errno.EADDRINUSE:
                yield Finding(where, "ok", f"{host}:{port}/{protocol}: in use by the running gateway")
            else:
                words = f"{host}:{port}/{protocol}: {error.strerror or error}; {remedy(protocol, error)}"
                yield Finding(where, "problem", words)
        else:
            yield Finding(where, "ok", f"{host}:{port}/{protocol}: free")


def _certificates(config: Config, now: datetime) -> Iterator[Finding]:
    for identity in identities(config):
        expires = expiry(identity.path)
        days = (expires - now).days
        state: Literal["ok", "note"] = "note" if expires - now < _SOON else "ok"
        yield Finding(identity.where, state, f"certificate {identity.path}: expires {expires:%Y-%m-%d}, in {days} days")


def _far_ends(config: Config) -> Iterator[Finding]:
    contexts = load_all(config)
    for where, knock in _doors(config, contexts):
        try:
            knock()
        except UnavailableError as error:
            yield Finding(where, "problem", str(error))
        else:
            yield Finding(where, "ok", "lets us in")


def _doors(config: Config, contexts: dict[str, ssl.SSLContext]) -> Iterator[tuple[str, Callable[[], None]]]:
    for source in config.sources:
        where = f"source {source.name}"
        if isinstance(source, Mqtt):
            yield where, partial(knock_broker, source, contexts.get(where))
    for output in config.outputs:
        where = f"output {output.name}"
        if isinstance(output, MqttOutput):
            yield where, partial(knock_broker, output, contexts.get(where))
        elif isinstance(output, KafkaOutput):
            from edge.kafka import knock_kafka  # noqa: PLC0415 - not every gateway has a client of Kafka

            yield where, partial(knock_kafka, output, config.gateway.name)
        elif isinstance(output, SyslogOutput):
            yield where, partial(knock_siem, output, contexts.get(where))
    if config.uplink is not None:
        from edge.uplink import knock_uplink  # noqa: PLC0415 - not every gateway speaks MQTT

        yield UPLINK, partial(knock_uplink, config, config.uplink, contexts.get(UPLINK))


def _files(config: Config) -> Iterator[Finding]:
    for source in config.sources:
        if isinstance(source, FileTail):
            yield _readable(f"source {source.name}", Path(source.path))
    outputs = [output for output in config.outputs if isinstance(output, JsonLines)]
    for output in (*outputs, *([config.dead_letters] if config.dead_letters is not None else [])):
        path = Path(output.path).absolute()
        problem = _not_ours(path) or _unwritable(path.parent)
        if problem:
            yield Finding(f"output {output.name}", "problem", f"{output.path}: {problem}; mend it or change `path`")
        else:
            yield Finding(f"output {output.name}", "ok", f"{output.path}: can be written")


def _backlogs(config: Config) -> Iterator[Finding]:
    """What waits for an output that is no longer configured waits for ever."""
    wanted = {backlog_path(config, output.name) for output in (*config.outputs, dead_letters(config))}
    if config.uplink is not None:
        wanted.add(backlog_path(config, UPLINK))
    for path in sorted(backlog_path(config, "any").parent.glob("*.sqlite3")):
        if path in wanted:
            continue
        try:
            count = held(path)
        except UnavailableError as error:
            yield Finding(
                "backlog", "problem", f"{error}; no output `{path.stem}` is configured: look at it, or delete it"
            )
            continue
        if count:
            words = (
                f"{path}: holds {count} payloads of an output `{path.stem}` that is not configured; configure it again "
                "under this name to deliver them, or stop the gateway and delete the file"
            )
            yield Finding("backlog", "problem", words)
        else:
            words = f"{path}: empty, of an output `{path.stem}` that is not configured; it may be deleted"
            yield Finding("backlog", "note", words)


def _readable(where: str, path: Path) -> Finding:
    try:
        found = path.stat().st_mode
        if stat.S_ISREG(found):
            with path.open("rb"):
                return Finding(where, "ok", f"{path}: can be read")
    except FileNotFoundError:
        return Finding(where, "note", f"{path}: does not exist yet; it is followed as soon as it does")
    except OSError as error:
        return Finding(where, "problem", f"{path}: {error.strerror}; let our user read it (group adm, or an ACL)")
    advice = "name one file in it" if stat.S_ISDIR(found) else "give a file; what is piped can come by `stdin`"
    return Finding(where, "problem", f"{path}: found {kind_of(found)}, wanted a regular file; {advice}")


def _not_ours(path: Path) -> str:
    """Say why what is at a path already cannot be written as an output; nothing where it can, or nothing is there."""
    try:
        found = path.stat().st_mode
        if not stat.S_ISREG(found):
            return f"found {kind_of(found)}, wanted a regular file"
        os.close(os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC))  # as the output opens it; nothing is changed
    except FileNotFoundError:
        return ""
    except OSError as error:
        return f"cannot be opened to write: {error.strerror}"
    return ""


def _unwritable(directory: Path) -> str:
    """Say why no file can be made in a directory, or in the nearest one that exists; nothing where one can."""
    place = _existing(directory)
    try:
        with TemporaryFile(dir=place):
            return ""
    except OSError as error:
        return f"no file can be made in {place}: {error.strerror}"


def _existing(directory: Path) -> Path:
    while not directory.exists() and directory != directory.parent:
        directory = directory.parent
    return directory


def _names(parts: Sequence[Source | Output]) -> str:
    return ", ".join(part.name for part in parts)


def _mib(size: int) -> str:
    return f"{size / (1 << 20):,.0f} MiB"
