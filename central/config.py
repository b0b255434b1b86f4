"""What an operator may set: one TOML file into one frozen record, read once at start."""

import os
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, field

from central.lookups import LookupSection
from dataflows.correlation import IncidentRule
from dataflows.operators.enrich import Enrichment
from dataflows.sections import (
    Bytes,
    ClientTls,
    Model,
    Operations,
    PolicySection,
    Repeats,
    Seconds,
    Section,
    read_toml,
)
from models.contracts.policy import ROUTES, Route
from models.contracts.scalars import LabelName, Name, Number, Port


class Centre(Section, frozen=True, kw_only=True):
    name: Name = "centre"
    state_dir: str = (
        "state"  # recovery stores, backlogs, caches; the queue and the warehouse where nothing else is said
    )
    epoch_ms: Annotated[int, Meta(ge=10, le=60_000)] = 500  # what a crash can repeat; five syncs each


class Kafka(Section, frozen=True, kw_only=True):
    """Where the brokers are. `python -m central check --create` makes the topics."""

    brokers: str = "127.0.0.1:9092"  # several with commas between
    prefix: Name = "headwater"  # of the topics' names
    partitions: Number = 4  # of topics that are to be made
    replication: Number = 1  # likewise; 3 where there are as many brokers
    tls: ClientTls | None = None
    mechanism: Literal["", "SCRAM-SHA-256", "SCRAM-SHA-512"] = ""
    username: str = ""
    password_file: str = ""
    start: Literal["oldest", "newest"] = "oldest"  # of what is there when a flow first starts
    gone: Literal["oldest", "newest", "stop"] = "stop"  # where records were deleted before they were read
    slots: Annotated[int, Meta(ge=1, le=16)] = 4  # the most processes that share a topic; it can never change


class Mqtt(Section, frozen=True, kw_only=True):
    """The broker of the gateways."""

    host: str = "127.0.0.1"
    port: Port = 1883
    root: str = "headwater"  # of the topics' names
    client_id: str = ""  # of the bridge; empty: the centre's name and `bridge`. Each of several needs its own
    tls: ClientTls | None = None
    username: str = ""
    password_file: str = ""


class ReleaseEngine(Model, frozen=True, kw_only=True, tag_field="kind", tag="release"):
    """A GGUF on llama.cpp, in this process."""

    release: str = "soc-triage-large"


class VllmEngine(Section, frozen=True, kw_only=True, tag_field="kind", tag="vllm"):
    """A checkpoint in vLLM, in this process; vLLM is installed by whoever wants it."""

    model: str  # a folder
    task: str = ""  # a task file, where no `release.json` lies in the folder
    context_tokens: Annotated[int, Meta(ge=256, le=131_072)] = 1024
    budget_s: Seconds = 10.0  # for an event and those asked about at once; then they go to review
    window_events: Annotated[int, Meta(ge=1, le=4096)] = 256  # asked about at once


class OpenAiEngine(Section, frozen=True, kw_only=True, tag_field="kind", tag="openai"):
    """A model behind an OpenAI-compatible server: vLLM's, llama-server's."""

    url: str
    task: str  # a task file, or a release as JSON
    model: str = ""  # its name at the server; empty: the only one
    api_key_file: str = ""
    context_tokens: Annotated[int, Meta(ge=256, le=131_072)] = 1024
    budget_s: Seconds = 10.0  # for an event, retries included; then it goes to review
    concurrency: Annotated[int, Meta(ge=1, le=1024)] = 64  # events on their way at once
    attempts: Annotated[int, Meta(ge=1, le=10)] = 3
    window_events: Annotated[int, Meta(ge=1, le=4096)] = 256  # asked about at once


Engine = ReleaseEngine | VllmEngine | OpenAiEngine


class EventsTopic(Section, frozen=True, kw_only=True):
    """Text that others produce, to be judged here first."""

    topic: str
    name: Name = "events"  # of the source, in verdicts
    text_path: str = ""  # `a.b.c` into a JSON record; empty: the record is the text
    id_path: str = ""  # where the sender's own id stands, if it has one
    max_event_bytes: Bytes = 8192


class BridgeSection(Section, frozen=True, kw_only=True):
    """What carries gateways' uplinks from MQTT to Kafka, and the centre's answers back."""

    operations: Operations = Operations(port=9479)


class Triage(Section, frozen=True, kw_only=True):
    """The flow that answers what gateways doubt."""

    events: EventsTopic | None = None
    batch_records: Annotated[int, Meta(ge=1, le=10_000)] = 500
    operations: Operations = Operations(port=9480)


class Queue(Section, frozen=True, kw_only=True):
    """What waits for a person."""

    url: str = ""  # SQLAlchemy's; empty: SQLite in the state directory


class Warehouse(Section, frozen=True, kw_only=True):
    """Every verdict, as Parquet by day."""

    url: str = ""  # a folder or `s3://bucket/prefix`; empty: in the state directory
    gather_s: Seconds = 5.0  # so long verdicts gather for one file


class Index(Section, frozen=True, kw_only=True):
    """An OpenSearch that analysts search."""

    url: str = "http://127.0.0.1:9200"
    prefix: str = "headwater"
    tls: ClientTls | None = None
    username: str = ""
    password_file: str = ""


class Siem(Section, frozen=True, kw_only=True):
    """CEF over TCP or TLS, as from a gateway."""

    host: str = "127.0.0.1"
    port: Port = 6514
    routes: tuple[Route, ...] = ROUTES
    tls: ClientTls | None = None
    severity_by_label: dict[LabelName, Annotated[int, Meta(ge=0, le=10)]] = field(default_factory=dict)


class Deliver(Section, frozen=True, kw_only=True):
    """The flow that brings verdicts to where people work."""

    batch_records: Annotated[int, Meta(ge=1, le=10_000)] = 2000
    backlog_max_bytes: Bytes = 1 << 30  # of each delivery; then the flow waits, and Kafka keeps
    queue: Queue = Queue()
    warehouse: Warehouse = Warehouse()
    index: Index | None = None
    siem: Siem | None = None
    operations: Operations = Operations(port=9500)


class Config(Section, frozen=True, kw_only=True):
    centre: Centre = Centre()
    kafka: Kafka = Kafka()
    mqtt: Mqtt = Mqtt()
    bridge: BridgeSection = BridgeSection()
    engine: Engine = ReleaseEngine()
    policy: PolicySection = PolicySection()
    policy_file: str = ""  # TOML, re-read on SIGHUP; wins over `policy`
    repeats: Repeats = Repeats()
    lookups: tuple[LookupSection, ...] = ()
    enrich: tuple[Enrichment, ...] = ()
    incidents: tuple[IncidentRule, ...] = ()
    triage: Triage = Triage()
    deliver: Deliver = Deliver()


def config_path() -> Path:
    """Where the configuration is looked for: `HEADWATER_CENTRAL`, else `./central.toml`."""
    return Path(os.environ.get("HEADWATER_CENTRAL", "central.toml"))


def read_config(path: Path) -> Config:
    """Read and check the configuration; opens nothing else.

    Raises:
        ConfigError: the file, the key, what was found and what is wanted.
    """
    return read_toml(path, Config, "python -m central init")
