"""What must hold of a configuration before anything is opened; the types cannot say it."""

import ssl
from collections import defaultdict
from pathlib import Path

from edge.certificates import load_all
from edge.config import Config, JsonLines, Mqtt, Source, SyslogTcp, SyslogUdp
from models.contracts.errors import ConfigError


def require_sound(config: Config, path: Path) -> dict[str, ssl.SSLContext]:
    """Refuse a configuration that cannot work, however the machine is; return the contexts of its TLS.

    Raises:
        ConfigError: the file, the key, what was found and what is wanted.
    """
    if not config.sources:
        raise ConfigError(
            f"{path}: `sources`: found none, wanted at least one `[[sources]]`; `python -m edge init` shows how"
        )
    if not config.outputs:
        raise ConfigError(
            f"{path}: `outputs`: found none, wanted at least one `[[outputs]]`; `python -m edge init` shows how"
        )
    _require_own_ports(config, path)
    _require_own_files(config, path)
    for source in config.sources:
        if isinstance(source, Mqtt):
            # Paho costs a few megabytes, which a gateway without MQTT saves.
            from dataflows.connectors.mqtt import check_topics  # noqa: PLC0415

            check_topics(f"{path}: source {source.name}", source.topics)
    return load_all(config)


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
    outputs = [output for output in config.outputs if isinstance(output, JsonLines)]
    if config.dead_letters is not None:
        outputs.append(config.dead_letters)
    owners: dict[Path, str] = {}
    for output in outputs:
        file = Path(output.path).absolute()
        if file in owners:
            raise ConfigError(
                f"{path}: `path`: found {output.path} for {owners[file]} and {output.name}; each needs its own"
            )
        owners[file] = output.name
