"""The documents are true: links lead somewhere, and the guide has every key, default, metric and reason."""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from central import config as central
from dataflows import sections
from dataflows.running.meters import Meters
from dataflows.running.operations import OperationsServer
from edge import config
from edge.status import Status, StatusCollector
from models.contracts.policy import CacheRules, Policy

ROOT = Path(__file__).parent.parent
GUIDE = (ROOT / "docs" / "guides" / "gateway.md").read_text(encoding="utf-8")

SOURCE_KEYS = {"name", "max_event_bytes"}
OUTPUT_KEYS = {"name", "routes", "backlog_max_bytes"}
SECTIONS: dict[str, tuple[type[msgspec.Struct], set[str]]] = {
    "`[gateway]`": (config.Gateway, set()),
    "`[model]`": (sections.Model, set()),
    "`[policy]`": (Policy, set()),
    "`[policy.cache]`": (CacheRules, set()),
    "`[spool]`": (config.Spool, set()),
    "`[repeats]`": (sections.Repeats, set()),
    "`[operations]`": (sections.Operations, set()),
    '`kind = "syslog-udp"`': (config.SyslogUdp, SOURCE_KEYS),
    '`kind = "syslog-tcp"`': (config.SyslogTcp, SOURCE_KEYS),
    '`kind = "mqtt"`': (config.Mqtt, SOURCE_KEYS),
    '`kind = "file"`': (config.FileTail, SOURCE_KEYS),
    '`kind = "stdin"`': (config.StandardInput, SOURCE_KEYS),
    '`kind = "json-lines"`': (config.JsonLines, OUTPUT_KEYS),
    '`kind = "mqtt"` as an output': (config.MqttOutput, OUTPUT_KEYS),
    '`kind = "kafka"`': (config.KafkaOutput, OUTPUT_KEYS),
    "`[uplink]`": (config.Uplink, set()),
    '`kind = "syslog"`': (config.SyslogOutput, OUTPUT_KEYS),
    '`kind = "terminal"`': (config.Terminal, OUTPUT_KEYS),
}


CENTRAL_GUIDE = (ROOT / "docs" / "guides" / "central.md").read_text(encoding="utf-8")
CENTRAL_SECTIONS: dict[str, type[msgspec.Struct]] = {
    "`[centre]`": central.Centre,
    "`[kafka]`": central.Kafka,
    "`[mqtt]`": central.Mqtt,
    "`[engine]` of kind `release`": central.ReleaseEngine,
    "`[engine]` of kind `vllm`": central.VllmEngine,
    "`[engine]` of kind `openai`": central.OpenAiEngine,
    "`[triage]`": central.Triage,
    "`[deliver]`": central.Deliver,
    "`[deliver.queue]`": central.Queue,
    "`[deliver.warehouse]`": central.Warehouse,
    "`[deliver.index]`": central.Index,
    "`[deliver.siem]`": central.Siem,
}


def documented(heading: str, guide: str = GUIDE) -> dict[str, str]:
    """The keys and defaults in the table under a heading."""
    section = guide.split(f"### {heading}\n")[1].split("\n#", maxsplit=1)[0]
    return dict(re.findall(r"^\| `([a-z0-9_]+)` \| `?(.*?)`? \|", section, flags=re.MULTILINE))


def default(field: msgspec.structs.FieldInfo) -> str:
    if field.default_factory is not msgspec.NODEFAULT:
        value: Any = field.default_factory()
    elif field.default is not msgspec.NODEFAULT:
        value = field.default
    else:
        return "required"
    if isinstance(value, CacheRules):
        return "[policy.cache]"
    if isinstance(value, central.Queue | central.Warehouse):
        return f"[deliver.{field.name}]"
    return "none" if value is None else msgspec.json.encode(value).decode()


def keys(kind: type[msgspec.Struct]) -> dict[str, str]:
    return {field.name: default(field) for field in msgspec.structs.fields(kind)}


@pytest.mark.parametrize("heading", CENTRAL_SECTIONS)
def test_the_guide_of_the_centre_has_every_key_with_its_default(heading: str) -> None:
    assert documented(heading, CENTRAL_GUIDE) == keys(CENTRAL_SECTIONS[heading])


DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_within_the_repository_leads_somewhere(document: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text(encoding="utf-8"))

    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("heading", SECTIONS)
def test_the_guide_has_every_key_with_its_default(heading: str) -> None:
    kind, shared = SECTIONS[heading]

    assert documented(heading) == {name: value for name, value in keys(kind).items() if name not in shared}


@pytest.mark.parametrize(
    ("heading", "kind", "shared"),
    [("Every `[[sources]]`", config.SyslogUdp, SOURCE_KEYS), ("Every `[[outputs]]`", config.Terminal, OUTPUT_KEYS)],
)
def test_the_guide_has_the_keys_that_all_have(heading: str, kind: type[msgspec.Struct], shared: set[str]) -> None:
    common = {name: value for name, value in keys(kind).items() if name in shared}

    assert documented(heading) == {"kind": "required", **common}


def test_the_guide_has_every_section_and_every_kind() -> None:
    kinds = {kind for kind, _ in SECTIONS.values()}
    sections = {field.name for field in msgspec.structs.fields(config.Config)}

    assert kinds >= {*config.Source.__args__, *config.Output.__args__}
    assert {name for name in sections if f"[{name}]" not in GUIDE and f"`{name}`" not in GUIDE} == set()


def test_the_guide_has_every_metric_and_no_other() -> None:
    meters = Meters()
    status = Status(
        release="r-1",
        release_sha256="",
        policy=1,
        flow_begun=True,
        idle_s=0.0,
        intake_listening=True,
        spool_bytes=0,
        spool_max_bytes=1,
        spool_full=False,
        queue_age_s=0.0,
        events={},
        losses={},
        incidents={},
        cache_entries=0,
        cache={},
    )
    meters.registry.register(StatusCollector(lambda: status))
    server = OperationsServer("127.0.0.1", 0, meters.registry, list, list)
    server.close()
    served = {metric.name + ("_total" if metric.type == "counter" else "") for metric in meters.registry.collect()}

    assert set(re.findall(r"`(headwater_[a-z_]+)`", GUIDE)) == served


def test_the_guide_has_every_reason_that_the_code_knows() -> None:
    calls = re.compile(
        r"""(?:happened|lost)\([^"\n]*"([a-z-]+)"|_Refused\("([a-z-]+)"|reason="([a-z-]+)"|reason = "([a-z-]+)\""""
    )
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "dataflows").rglob("*.py"))
    reasons = {reason for found in calls.findall(sources) for reason in found if reason}

    assert [reason for reason in sorted(reasons) if f"`{reason}`" not in GUIDE] == []


def test_every_decision_is_in_the_index() -> None:
    folder = ROOT / "docs" / "adr"
    index = (folder / "README.md").read_text(encoding="utf-8")

    assert sorted(set(re.findall(r"\((\d{4}-[a-z0-9-]+\.md)\)", index))) == sorted(p.name for p in folder.glob("0*.md"))
