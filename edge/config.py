"""What an operator may set: one TOML file into one frozen record, read once at start."""

import os
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, field

from dataflows.connectors import cef, rfc5424
from dataflows.sections import (
    Bytes,
    ClientTls,
    Model,
    Operations,
    PolicySection,
    Repeats,
    Seconds,
    Section,
    ServerTls,
    read_toml,
)
from models.contracts.errors import ConfigError
from models.contracts.policy import ROUTES, Route
from models.contracts.scalars import Count, LabelName, Name, Number, Port


class _Source(Section, frozen=True, kw_only=True, tag_field="kind"):
    name: Name
    max_event_bytes: Bytes = 8192  # longer hostile input costs a parser tens of milliseconds


class SyslogUdp(_Source, frozen=True, kw_only=True, tag="syslog-udp"):
    host: str = "127.0.0.1"
    port: Port = 5514
    receive_buffer_bytes: Bytes = 16 << 20  # about a second at 20,000 datagrams/s


class SyslogTcp(_Source, frozen=True, kw_only=True, tag="syslog-tcp"):
    """Octet counting and line feeds (RFC 6587); with `tls`, RFC 5425."""

    host: str = "127.0.0.1"
    port: Port = 5514
    tls: ServerTls | None = None
    max_connections: Number = 256
    idle_timeout_s: Seconds = 3600.0


class Mqtt(_Source, frozen=True, kw_only=True, tag="mqtt"):
    """MQTT 5, persistent session; acknowledged when the event is on disk."""

    host: str = "127.0.0.1"
    port: Port = 1883
    topics: Annotated[tuple[str, ...], Meta(min_length=1)]
    client_id: str = ""  # empty: the gateway's name, the source's and `in`
    text_path: str = ""  # `a.b.c` into a JSON payload; empty: the payload is the text
    id_path: str = ""  # where the sender's own id stands, if it has one
    tls: ClientTls | None = None
    username: str = ""
    password_file: str = ""
    receive_maximum: Annotated[int, Meta(ge=1, le=65535)] = 1000
    session_expiry_s: Count = 7 * 24 * 3600


class FileTail(_Source, frozen=True, kw_only=True, tag="file"):
    """Follows a file through rotation and truncation."""

    path: str
    from_start: bool = True
    poll_interval_s: Seconds = 0.25


class StandardInput(_Source, frozen=True, kw_only=True, tag="stdin"):
    """Lines of standard input until its end."""


Source = SyslogUdp | SyslogTcp | Mqtt | FileTail | StandardInput


class _Output(Section, frozen=True, kw_only=True, tag_field="kind"):
    name: Name
    routes: tuple[Route, ...] = ROUTES
    backlog_max_bytes: Bytes = 1 << 30  # then the flow waits, and the spool behind it


class JsonLines(_Output, frozen=True, kw_only=True, tag="json-lines"):
    path: str
    rotate_bytes: Bytes = 64 << 20
    rotate_s: Seconds = 24 * 3600.0
    keep: Count = 30  # rotated files; 0 keeps all


class MqttOutput(_Output, frozen=True, kw_only=True, tag="mqtt"):
    host: str = "127.0.0.1"
    port: Port = 1883
    topic: str = "headwater/verdicts"
    tls: ClientTls | None = None
    username: str = ""
    password_file: str = ""


class KafkaOutput(_Output, frozen=True, kw_only=True, tag="kafka"):
    """To a topic that is there, keyed by the events' ids."""

    brokers: str = "127.0.0.1:9092"  # several with commas between
    topic: str = "headwater.verdicts"
    tls: ClientTls | None = None
    mechanism: Literal["", "SCRAM-SHA-256", "SCRAM-SHA-512"] = ""
    username: str = ""
    password_file: str = ""


class SyslogOutput(_Output, frozen=True, kw_only=True, tag="syslog"):
    """To a SIEM over TCP or TLS: RFC 5424 structured data, or CEF."""

    host: str = "127.0.0.1"
    port: Port = 6514
    format: Literal["rfc5424", "cef"] = "rfc5424"
    severity_by_label: dict[LabelName, Annotated[int, Meta(ge=0, le=7)]] = field(
        default_factory=lambda: dict(rfc5424.SEVERITIES)
    )  # of the syslog header, in both formats; what is not named is informational
    cef_severity_by_label: dict[LabelName, Annotated[int, Meta(ge=0, le=10)]] = field(
        default_factory=lambda: dict(cef.SEVERITIES)
    )  # what is not named is low
    tls: ClientTls | None = None


class Terminal(_Output, frozen=True, kw_only=True, tag="terminal"):
    """Coloured lines on standard output."""


Output = JsonLines | MqttOutput | KafkaOutput | SyslogOutput | Terminal


class Uplink(Section, frozen=True, kw_only=True):
    """To the centre and back over MQTT 5: verdicts until Kafka has them, and what the centre says of our events."""

    host: str = "127.0.0.1"
    port: Port = 1883
    root: str = "headwater"  # of the topics, `<root>/<our name>/…`
    tls: ClientTls | None = None
    username: str = ""
    password_file: str = ""
    routes: tuple[Route, ...] = ROUTES  # none: verdicts go up another way, and answers come by this one
    backlog_max_bytes: Bytes = 1 << 30  # then the flow waits, and the spool behind it


UPLINK, ANSWERS = "uplink", "answers"
"""What the two ways of the uplink are called among outputs and sources."""


class Gateway(Section, frozen=True, kw_only=True):
    name: Name = "gateway"
    state_dir: str = "state"  # spool, recovery, backlogs; on a disk that survives power loss
    epoch_ms: Annotated[int, Meta(ge=10, le=60_000)] = 500  # what a crash can repeat; five syncs each


class Spool(Section, frozen=True, kw_only=True):
    # At least several rows of the largest size, so that writing and trimming take turns.
    max_bytes: Annotated[int, Meta(ge=1 << 20)] = 2 << 30  # about a day at 200 events/s


class Config(Section, frozen=True, kw_only=True):
    gateway: Gateway = field(default_factory=Gateway)
    model: Model = field(default_factory=Model)
    policy: PolicySection = field(default_factory=PolicySection)
    policy_file: str = ""  # TOML, re-read on SIGHUP; wins over `policy`
    spool: Spool = field(default_factory=Spool)
    repeats: Repeats = field(default_factory=Repeats)
    operations: Operations = field(default_factory=Operations)
    sources: tuple[Source, ...] = ()
    outputs: tuple[Output, ...] = ()
    uplink: Uplink | None = None
    dead_letters: JsonLines | None = None  # none: `dead-letters.jsonl` in the state directory


def dead_letters(config: Config) -> JsonLines:
    """Where dead letters go: as configured, else into the state directory."""
    if config.dead_letters is not None:
        return config.dead_letters
    return JsonLines(name="dead-letters", path=str(Path(config.gateway.state_dir) / "dead-letters.jsonl"))


def client_id(gateway: str, part: Mqtt | MqttOutput) -> str:
    """Return what a broker knows a part by: one id per direction, for it hangs up on a client whose id comes again."""
    if isinstance(part, Mqtt):
        return part.client_id or f"{gateway}-{part.name}-in"
    return f"{gateway}-{part.name}-out"


def config_path() -> Path:
    """Where the configuration is looked for: `HEADWATER_CONFIG`, else `./edge.toml`."""
    return Path(os.environ.get("HEADWATER_CONFIG", "edge.toml"))


def read_config(path: Path) -> Config:
    """Read and check the configuration; opens nothing else.

    Raises:
        ConfigError: the file, the key, what was found and what is wanted.
    """
    config = read_toml(path, Config, "python -m edge init")
    # Dead letters are an output too: its name is that of a backlog, where two would take each other's payloads.
    outputs = (*config.outputs, dead_letters(config))
    for section, parts, ours in (
        ("sources", config.sources, ANSWERS),
        ("outputs` and `dead_letters", outputs, UPLINK),
    ):
        names = [part.name for part in parts]
        if config.uplink is not None and ours in names:
            raise ConfigError(f"{path}: `{section}`: the name `{ours}` is taken by `[uplink]`; give another")
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(
                    f"{path}: `{section}`: the name `{name}` occurs {names.count(name)} times; each needs its own"
                )
    return config
