"""The certificates that the configuration names: whether they work now, and for how long."""

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Struct

from dataflows.connectors.tls import client_context, server_context
from dataflows.sections import ServerTls
from edge.config import UPLINK, Config, KafkaOutput, Mqtt, MqttOutput, SyslogOutput, SyslogTcp


class Identity(Struct, frozen=True):
    """A certificate in use: which part of the configuration shows it, and where it lies."""

    where: str
    path: str


def load_all(config: Config) -> dict[str, ssl.SSLContext]:
    """Return a context for each source and output with TLS, by its place in the configuration.

    Raises:
        ConfigError: the file, what is wrong with it and what to do.
    """
    return dict(_contexts(config))


def _contexts(config: Config) -> Iterator[tuple[str, ssl.SSLContext]]:
    for section, parts in (("source", config.sources), ("output", config.outputs)):
        for part in parts:
            where = f"{section} {part.name}"
            match part:
                case SyslogTcp(tls=ServerTls() as tls):
                    yield where, server_context(where, tls.certificate, tls.key, tls.client_ca)
                case Mqtt() | MqttOutput() | KafkaOutput() | SyslogOutput() if part.tls is not None:
                    yield where, client_context(where, part.tls.ca, part.tls.certificate, part.tls.key)
                case _:
                    pass
    if config.uplink is not None and config.uplink.tls is not None:
        ours = config.uplink.tls
        yield UPLINK, client_context(UPLINK, ours.ca, ours.certificate, ours.key)


def identities(config: Config) -> Iterator[Identity]:
    """Yield every certificate that we show to others."""
    for section, parts in (("source", config.sources), ("output", config.outputs)):
        for part in parts:
            tls = getattr(part, "tls", None)
            if tls is not None and tls.certificate:
                yield Identity(f"{section} {part.name}", tls.certificate)
    if config.uplink is not None and config.uplink.tls is not None and config.uplink.tls.certificate:
        yield Identity(UPLINK, config.uplink.tls.certificate)


def expiry(path: str) -> datetime:
    """Return when the first certificate of a file that loads expires."""
    from cryptography import x509  # noqa: PLC0415 - only `edge check` asks; a gateway saves its memory

    found = x509.load_pem_x509_certificates(Path(path).read_bytes())
    return min(each.not_valid_after_utc for each in found).astimezone(UTC)
