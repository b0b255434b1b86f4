"""Triage with what is known of hosts: it decides where verdicts go, and what the model reads where the task asks."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from bytewax.testing import TestingSource, run_main
from msgspec.structs import replace

from dataflows.cache.verdict_cache import VerdictCache
from dataflows.lookup import Freshness, Table, Tables
from dataflows.observer import Unobserved
from dataflows.operators.enrich import Enriching, Enrichment
from dataflows.operators.repeats import Repeats
from dataflows.triage import Outlet, triage
from models.classifier import Classifier, Current
from models.contracts.errors import UnavailableError
from models.contracts.policy import CacheRules, ContextRule, Policy
from models.contracts.verdict import Verdict
from tests.fakes.answering import UNAUDITED
from tests.fakes.classifier import TASK, ScriptedClassifier, release
from tests.fakes.records import FakeBatch, batch
from tests.fakes.sink import MemorySink

WANTED = (Enrichment(table="assets", key="host", facts=("criticality",)),)
SHOWN = replace(TASK, context=("criticality",))
ROWS = [("web-1", {"criticality": "high"}), ("lab-1", {"criticality": "low"})]
POLICY = Policy(
    accept_at=0.8,
    when=(ContextRule(context={"criticality": "high"}, accept_at=0.99, doubtful="escalated"),),
    cache=CacheRules(ask_first=1, **UNAUDITED),
)


def assets(when_stale: Any = "keep", fresh_s: float = 60.0, *, read: bool = True) -> Tables:
    tables = Tables({"assets": Freshness(fresh_s=fresh_s, when_stale=when_stale)})
    if read:
        tables.put("assets", Table(ROWS, 10))
    return tables


def opened(*hosts: str, start: int = 0) -> FakeBatch:
    """The same event on each host."""
    return batch(*(f"<38>Jan 31 23:59:59 {host} sshd: session opened" for host in hosts), start=start)


def run(
    batches: Sequence[FakeBatch],
    tables: Tables,
    *,
    classifier: ScriptedClassifier | None = None,
    outlets: Sequence[Outlet] = (),
    wait: Callable[[float], bool] = lambda _seconds: False,
) -> list[Verdict]:
    sink = MemorySink()
    said: Classifier = classifier or ScriptedClassifier()
    run_main(
        triage(
            TestingSource(batches),
            Current(said),
            Current(POLICY),
            [Outlet("all", sink), *outlets],
            MemorySink(),
            readings={},
            repeats=Repeats(),
            cache=VerdictCache(b"secret"),
            window_events=64,
            wait=wait,
            observer=Unobserved(),
            enriching=Enriching(WANTED, tables),
        )
    )
    return sink.records


def test_what_is_known_of_a_host_decides_where_its_verdicts_go() -> None:
    high = MemorySink()
    verdicts = run([opened("web-1", "lab-1", "new-1")], assets(), outlets=[Outlet("high", high, when=ROWS[0][1])])

    assert [(verdict.host, verdict.route, verdict.context) for verdict in verdicts] == [
        ("web-1", "escalated", {"criticality": "high"}),
        ("lab-1", "accepted", {"criticality": "low"}),
        ("new-1", "accepted", {}),
    ]
    assert [verdict.host for verdict in high.records] == ["web-1"]


def test_two_events_alike_but_for_their_hosts_share_an_answer_where_the_model_is_not_shown_what_is_known() -> None:
    classifier = ScriptedClassifier()
    verdicts = run([opened("web-1"), opened("lab-1", start=1)], assets(), classifier=classifier)

    assert classifier.asked == [["sshd: session opened"]]
    assert [verdict.cached is None for verdict in verdicts] == [True, False]


def test_two_events_alike_but_for_their_hosts_share_no_answer_where_the_model_is_shown_what_is_known() -> None:
    classifier = ScriptedClassifier()
    classifier._release = release(1, SHOWN)
    batches = [opened("web-1"), opened("lab-1", start=1), opened("lab-1", start=2)]
    verdicts = run(batches, assets(), classifier=classifier)

    assert classifier.asked == [
        ["[criticality:high] sshd: session opened"],
        ["[criticality:low] sshd: session opened"],
    ]
    assert [verdict.cached is None for verdict in verdicts] == [True, True, False]
    assert [verdict.text.encode() for verdict in verdicts] == [each.records[0] for each in batches]


@pytest.mark.parametrize(
    ("when_stale", "context"), [("keep", {"criticality": "high", "assets": "stale"}), ("without", {"assets": "away"})]
)
def test_a_table_that_is_too_old_is_used_or_not_as_the_operator_chose_and_either_is_marked(
    when_stale: str, context: dict[str, str]
) -> None:
    (verdict,) = run([opened("web-1")], assets(when_stale, fresh_s=-1.0))

    assert verdict.context == context


def test_events_wait_for_a_table_that_is_to_be_waited_for_and_none_is_lost() -> None:
    tables = assets("wait", read=False)
    waits: list[float] = []

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        if len(waits) == 3:
            tables.put("assets", Table(ROWS, 10))
        return False

    verdicts = run([opened("web-1"), opened("lab-1", start=1)], tables, wait=wait)

    assert len(waits) == 3
    assert [verdict.context for verdict in verdicts] == [{"criticality": "high"}, {"criticality": "low"}]


def test_waiting_for_a_table_ends_when_the_flow_is_told_to_stop() -> None:
    with pytest.raises(Exception, match=r"raised exception|error") as caught:
        run([opened("web-1")], assets("wait", read=False), wait=lambda _seconds: True)

    error: BaseException = caught.value
    while error.__cause__ is not None:
        error = error.__cause__
    assert isinstance(error, UnavailableError)
