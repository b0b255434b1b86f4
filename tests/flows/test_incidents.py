"""Incidents as a flow finds them: over lists, crashes, workers and silence."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from bytewax import operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import SimplePollingSource, Source
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSource, cluster_main, run_main

from dataflows.correlation import IncidentRule
from dataflows.operators.incidents import incidents
from models.contracts.errors import ConfigError
from models.contracts.incident import Incident
from models.contracts.scalars import EventId
from models.contracts.verdict import Verdict
from tests.fakes.sink import MemorySink
from tests.fakes.verdicts import verdict

AT_MS = 1_700_000_000_000
RULE = IncidentRule(name="brute-force", labels=("suspicious",), at_least=5, within_s=120, lateness_s=0)


def said(number: int, *, address: str = "203.0.113.9", **more: Any) -> Verdict:
    """The verdict on one of many failed logins, a second after the one before."""
    return verdict(
        **{
            "id": EventId(f"o.{number}"),
            "text": f"Failed password for root from {address}",
            "label": "suspicious",
            "received_at_ms": AT_MS + 1000 * number,
        }
        | more
    )


def flow(source: Source[list[Verdict]], sink: MemorySink, *rules: IncidentRule) -> Dataflow:
    made = Dataflow("incidents")
    found = incidents(
        "incidents", op.input("verdicts", made, source), rules or (RULE,), lambda *_: None, lambda: datetime.now(UTC)
    )
    op.output("queue", op.key_on("keyed", found, lambda told: told[0].id), sink)
    return made


def run(batches: Sequence[Any], sink: MemorySink, recovery: Path | None = None) -> None:
    store = None if recovery is None else RecoveryConfig(recovery)
    run_main(flow(TestingSource(batches), sink), epoch_interval=timedelta(0), recovery_config=store)


def last(sink: MemorySink) -> dict[str, Incident]:
    """Every incident as it stands, as the far end of the sink has it."""
    standing: dict[str, Incident] = {}
    for incident in sink.records:
        before = standing.get(incident.id)
        if before is None or incident.revision > before.revision:
            standing[incident.id] = incident
    return standing


@pytest.fixture
def recovery(tmp_path: Path) -> Path:
    folder = tmp_path / "recovery"
    folder.mkdir()
    init_db_dir(folder, 1)
    return folder


def test_five_from_one_address_in_two_minutes_are_one_incident_and_not_five() -> None:
    sink = MemorySink()
    run(
        [[said(0), said(1)], [said(2, address="198.51.100.7"), said(3, label="benign")], [said(4), said(5), said(6)]],
        sink,
    )

    (incident,) = sink.records
    assert [each.id for each in incident.verdicts] == ["o.0", "o.1", "o.4", "o.5", "o.6"]
    assert (incident.rule, incident.key) == ("brute-force", "203.0.113.9")


def test_a_flow_may_have_several_rules_each_with_its_own_incidents() -> None:
    sink = MemorySink()
    hosts = IncidentRule(name="by-host", labels=("suspicious", "critical"), key="host", at_least=2, lateness_s=0)
    run_main(flow(TestingSource([[said(0), said(1, address="198.51.100.7")]]), sink, RULE, hosts))

    assert [(incident.rule, incident.key, incident.count) for incident in sink.records] == [("by-host", "web-1", 2)]


def test_two_rules_of_one_name_are_a_mistake() -> None:
    with pytest.raises(ConfigError, match="wanted each name once"):
        flow(TestingSource([]), MemorySink(), RULE, RULE)


@pytest.mark.parametrize("crash_after", range(1, 9))
def test_a_crash_at_any_moment_leaves_one_incident_with_every_event(recovery: Path, crash_after: int) -> None:
    sink = MemorySink()
    batches: list[Any] = [[said(number)] for number in range(8)]
    batches.insert(crash_after, TestingSource.ABORT())

    run(batches, sink, recovery)
    run(batches, sink, recovery)
    later = [*batches, [said(8, received_at_ms=AT_MS + 3_600_000)]]  # another burst, perhaps: it ends this one
    run(later, sink, recovery)

    (incident,) = last(sink).values()
    assert incident.state == "closed"
    assert [each.id for each in incident.verdicts] == [f"o.{number}" for number in range(8)]


def test_a_flow_that_is_stopped_in_the_midst_of_a_burst_goes_on_with_it(recovery: Path) -> None:
    sink = MemorySink()
    batches: list[Any] = [[said(0), said(1), said(2)], TestingSource.EOF(), [said(3), said(4)]]
    run(batches, sink, recovery)
    assert sink.records == []
    run(batches, sink, recovery)

    assert [incident.count for incident in sink.records] == [5]


def test_on_two_workers_each_incident_is_whole() -> None:
    sink = MemorySink()
    batches = [
        [said(10 * number + at, address=f"203.0.113.{at}", received_at_ms=AT_MS + number) for at in range(10)]
        for number in range(5)
    ]
    cluster_main(flow(TestingSource(batches), sink), [], 0, worker_count_per_proc=2)

    assert sorted((incident.key, incident.count) for incident in sink.records) == [
        (f"203.0.113.{at}", 5) for at in range(10)
    ]


class Slow(SimplePollingSource[list[Verdict], None]):
    """A list at once, and then silence."""

    def __init__(self, verdicts: list[Verdict], polls: int) -> None:
        super().__init__(timedelta(milliseconds=20))
        self._verdicts = verdicts
        self._polls = polls

    def next_item(self) -> list[Verdict]:
        self._polls -= 1
        if self._polls < 0:
            raise StopIteration
        verdicts, self._verdicts = self._verdicts, []
        return verdicts


def test_silence_settles_what_waits_and_ends_the_incident() -> None:
    sink = MemorySink()
    rule = IncidentRule(name="quick", labels=("suspicious",), at_least=2, within_s=0.3, lateness_s=0.1)
    verdicts = [said(1, received_at_ms=AT_MS + 100), said(0, received_at_ms=AT_MS)]
    run_main(flow(Slow(verdicts, 100), sink, rule), epoch_interval=timedelta(0))

    assert [(incident.state, [each.id for each in incident.verdicts]) for incident in sink.records] == [
        ("open", ["o.0", "o.1"]),
        ("closed", ["o.0", "o.1"]),
    ]
