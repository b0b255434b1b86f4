"""What must hold of a configuration before anything is opened; the types cannot say it."""

import re
import ssl
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path

from dataflows.connectors.uplink import LINE_BYTES, check_root
from dataflows.sections import read_password
from edge.certificates import load_all
from edge.config import (
    ANSWERS,
    UPLINK,
    Config,
    FileTail,
    JsonLines,
    KafkaOutput,
    Mqtt,
    MqttOutput,
    Source,
    SyslogOutput,
    SyslogTcp,
    SyslogUdp,
    client_id,
    dead_letters,
)
from models.contracts.errors import ConfigError
from models.contracts.release import Release

_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")  # Kafka's rule
_LEAST_SPOOL_BYTES = 4 * LINE_BYTES  # where answers of the centre come into it


def require_sound(config: Config, path: Path) -> dict[str, ssl.SSLContext]:
    """Refuse a configuration that cannot work, however the machine is; return the contexts of its TLS.

    Raises:
        ConfigError: the file, the key, what was found and what is wanted.
    """
    if not config.sources:
        raise ConfigError(
            f"{path}: `sources`: found none, wanted at least one `[[sources]]`; `python -m edge init` shows how"
        )
    if not config.outputs and (config.uplink is None or not config.uplink.routes):
        raise ConfigError(
            f"{path}: `outputs`: found none, wanted at least one `[[outputs]]`, or an `[uplink]`; "
            "`python -m edge init` shows how"
        )
    _require_own_ports(config, path)
    _require_own_files(config, path)
    _require_room(config, path)
    _require_brokers_fit(config, path)
    _require_uplink_fits(config, path)
    _require_kafka_fits(config, path)
    _require_severities_in_use(config, path)
    return load_all(config)


def require_known_labels(config: Config, path: Path, release: Release) -> None:
    """Refuse an output that speaks of labels which the release does not have; the defaults suit any release.

    Raises:
        ConfigError: the file, the key, what was found and what is wanted.
    """
    known = release.task.label_names
    default = SyslogOutput(name="default")
    for output in config.outputs:
        if not isinstance(output, SyslogOutput):
            continue
        for key in ("severity_by_label", "cef_severity_by_label"):
            named = getattr(output, key)
            unknown = sorted(named.keys() - set(known))
            if unknown and named != getattr(default, key):
                raise ConfigError(
                    f"{path}: output {output.name}: `{key}`: found `{unknown[0]}`, wanted one of {list(known)}, the "
                    f"labels of {release.title}"
                )


def listeners(config: Config) -> list[tuple[str, str, str, int]]:
    """Return protocol, host and port of everything that listens, each with its place in the configuration."""
    found = [("operations", "tcp", config.operations.host, config.operations.port)]
    for source in config.sources:
        protocol = _protocol(source)
        if protocol and isinstance(source, SyslogTcp | SyslogUdp):
            found.append((f"source {source.name}", protocol, source.host, source.port))
    return found


def _protocol(source: Source) -> str:
    match source:
        case SyslogUdp():
            return "udp"
        case SyslogTcp():
            return "tcp"
        case _:
            return ""


def _require_own_ports(config: Config, path: Path) -> None:
    taken: dict[tuple[str, str, int], list[str]] = defaultdict(list)
    for where, protocol, host, port in listeners(config):
        if port:
            taken[protocol, host, port].append(where)
    for (protocol, host, port), owners in taken.items():
        if len(owners) > 1:
            raise ConfigError(
                f"{path}: `port`: found {host}:{port}/{protocol} for {' and '.join(owners)}; each needs its own"
            )


def _require_own_files(config: Config, path: Path) -> None:
    """Refuse two outputs that write one file, and a source that would follow what we write."""
    outputs = [output for output in config.outputs if isinstance(output, JsonLines)]
    owners: dict[Path, str] = {}
    for output in (*outputs, dead_letters(config)):
        file = Path(output.path).resolve()
        if file in owners:
            raise ConfigError(
                f"{path}: `path`: found {output.path} for {owners[file]} and {output.name}; each needs its own"
            )
        owners[file] = output.name
    for source in config.sources:
        if isinstance(source, FileTail) and (writer := owners.get(Path(source.path).resolve())) is not None:
            raise ConfigError(
                f"{path}: `path`: found {source.path} for source {source.name} and output {writer}; "
                "a verdict would be an event again: each needs its own"
            )


def _require_room(config: Config, path: Path) -> None:
    most = config.spool.max_bytes // 2
    for source in config.sources:
        if source.max_event_bytes > most:
            raise ConfigError(
                f"{path}: source {source.name}: `max_event_bytes`: found {source.max_event_bytes}, wanted at most "
                f"{most}, half of `spool.max_bytes`: a longer event would wait for room for ever"
            )


def _require_severities_in_use(config: Config, path: Path) -> None:
    default = SyslogOutput(name="default").cef_severity_by_label
    for output in config.outputs:
        if isinstance(output, SyslogOutput) and output.format != "cef" and output.cef_severity_by_label != default:
            raise ConfigError(
                f"{path}: output {output.name}: `cef_severity_by_label`: found it with `format` {output.format}, "
                "wanted `cef`: nothing would read it"
            )


def _require_kafka_fits(config: Config, path: Path) -> None:
    for output in config.outputs:
        if not isinstance(output, KafkaOutput):
            continue
        where = f"{path}: output {output.name}"
        if find_spec("confluent_kafka") is None:
            raise ConfigError(f"{where}: `kind`: found kafka, which needs `pip install headwater[kafka]`")
        if not _TOPIC.fullmatch(output.topic):
            raise ConfigError(
                f"{where}: `topic`: found `{output.topic}`, wanted letters, digits, `.`, `_` and `-`, 249 at the most"
            )
        if bool(output.username) != bool(output.mechanism):
            raise ConfigError(
                f"{where}: `mechanism`: found `{output.mechanism}` with the user name `{output.username}`, wanted both "
                "or neither"
            )
        read_password(where, output.password_file)


def _require_uplink_fits(config: Config, path: Path) -> None:
    uplink = config.uplink
    if uplink is None:
        return
    check_root(f"{path}: `uplink`", uplink.root)
    read_password(f"{path}: `uplink`", uplink.password_file)
    if config.spool.max_bytes < _LEAST_SPOOL_BYTES:
        raise ConfigError(
            f"{path}: `spool.max_bytes`: found {config.spool.max_bytes} with an `[uplink]`, wanted at least "
            f"{_LEAST_SPOOL_BYTES}: a longer answer would wait for room for ever"
        )
    if "escalated" in uplink.routes and "unsure" not in uplink.routes:
        raise ConfigError(
            f"{path}: `uplink`: `routes`: found escalated without unsure, wanted both: what would be escalated is "
            "unsure while the centre is away"
        )


def _require_brokers_fit(config: Config, path: Path) -> None:
    owners: dict[tuple[str, int, str], str] = {}
    if config.uplink is not None:
        for way in (UPLINK, ANSWERS):
            owners[config.uplink.host, config.uplink.port, f"{config.gateway.name}-{way}"] = "uplink"
    parts: list[tuple[str, Mqtt | MqttOutput]] = [
        (f"source {source.name}", source) for source in config.sources if isinstance(source, Mqtt)
    ]
    parts += [(f"output {output.name}", output) for output in config.outputs if isinstance(output, MqttOutput)]
    for where, part in parts:
        # Paho costs a few megabytes, which a gateway without MQTT saves.
        from dataflows.connectors.mqtt import check_topics  # noqa: PLC0415
        from dataflows.connectors.mqtt_publisher import check_topic  # noqa: PLC0415

        if isinstance(part, Mqtt):
            check_topics(f"{path}: {where}", part.topics)
        else:
            check_topic(f"{path}: {where}", part.topic)
        read_password(f"{path}: {where}", part.password_file)
        known_as = client_id(config.gateway.name, part)
        owner = owners.setdefault((part.host, part.port, known_as), where)
        if owner != where:
            raise ConfigError(
                f"{path}: `client_id`: found {known_as} at {part.host}:{part.port} for {owner} and {where}; each needs "
                "its own, or the broker lets in only one"
            )
