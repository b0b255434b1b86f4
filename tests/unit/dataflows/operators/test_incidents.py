"""Which verdicts a rule sees, under which key, and what they take back."""

import pickle
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from msgspec.structs import replace

from dataflows.correlation import SHARDS, IncidentRule
from dataflows.operators.incidents import by_shard, occurred_ms, sightings
from models.contracts.policy import ROUTES
from models.contracts.verdict import Verdict
from models.contracts.wire import decode_verdict
from tests.fakes.verdicts import any_verdict, verdict

RULE = IncidentRule(name="brute", labels=("suspicious", "critical"))
FROM = "Failed password for root from 203.0.113.9 to 198.51.100.7"


def keys(rule: IncidentRule = RULE, **said: Any) -> list[tuple[str, str]]:
    """The keys under which a verdict is seen, each with the label that counts there."""
    return [(each.key, each.label) for each in sightings(rule, verdict(**({"text": FROM} | said)))]


def test_a_verdict_is_seen_whole_under_the_first_address_of_its_text() -> None:
    said = verdict(text=FROM, occurred_at_ms=1_700_000_000_000, gateway="gw-1", revision=0)
    (seen,) = sightings(RULE, said)

    assert (seen.key, seen.id, seen.at_ms, seen.label, seen.gateway) == (
        "203.0.113.9",
        said.id,
        1_700_000_000_000,
        "critical",
        "gw-1",
    )
    assert decode_verdict(seen.verdict) == said


def test_an_address_in_one_of_the_rules_fields_goes_before_the_text() -> None:
    fields = {"target": ("203.0.113.9",), "source": ("host 198.51.100.7:22",)}

    assert keys(fields=fields) == [("198.51.100.7", "critical")]


@pytest.mark.parametrize(("key", "found"), [("host", "web-1"), ("source", "hosts"), ("address", "203.0.113.9")])
def test_the_rule_says_what_the_key_is(key: Any, found: str) -> None:
    assert keys(replace(RULE, key=key), host="WEB-1") == [(found, "critical")]


@pytest.mark.parametrize("said", [{"label": "benign"}, {"route": "unsure"}, {"reason": "engine-timeout"}])
def test_a_verdict_with_another_label_or_with_one_that_no_model_said_is_not_seen(said: dict[str, str]) -> None:
    assert keys(**said) == []
    assert keys(**said, revision=1) == [("203.0.113.9", ""), ("198.51.100.7", "")]


def test_a_later_revision_takes_back_whatever_was_said_under_any_address_of_the_text() -> None:
    assert keys(label="benign", revision=1000) == [("203.0.113.9", ""), ("198.51.100.7", "")]


def test_a_later_revision_that_is_seen_under_another_address_is_taken_back_under_the_first() -> None:
    assert keys(revision=1, fields={"source": ("198.51.100.7",)}) == [
        ("198.51.100.7", "critical"),
        ("203.0.113.9", ""),
    ]


@pytest.mark.parametrize(
    ("said_ms", "found_ms"),
    [(None, 1_000_000), (999_000, 999_000), (1_001_000, 1_001_000), (1, 1_000_000), (9_000_000, 1_000_000)],
)
def test_a_senders_clock_is_believed_where_it_is_near_ours(said_ms: int | None, found_ms: int) -> None:
    rule = replace(RULE, clock_s=60.0)

    assert occurred_ms(rule, verdict(received_at_ms=1_000_000, occurred_at_ms=said_ms)) == found_ms


def test_verdicts_without_a_key_are_counted() -> None:
    missed: Counter[tuple[str, str]] = Counter()
    said = [verdict(text="no address"), verdict(text=FROM), verdict(text="none", label="benign", revision=3)]

    shards = by_shard(RULE, lambda rule, why, times: missed.update({(rule, why): times}), said)

    assert [[each.key for each in seen] for _, seen in shards] == [["203.0.113.9"]]
    assert missed == {("brute", "without-key"): 1}


def test_what_is_seen_may_go_to_another_process() -> None:
    seen = sightings(RULE, verdict(text=FROM))

    assert pickle.loads(pickle.dumps(seen)) == seen  # noqa: S301 - as Bytewax does


@given(any_verdict())
def test_any_verdict_can_be_seen(said: Verdict) -> None:
    for key in ("address", "host", "source"):
        rule = replace(RULE, key=key, labels=(said.label,), routes=ROUTES)
        for shard, seen in by_shard(rule, lambda *_: None, [said]):
            assert 0 <= int(shard) < SHARDS
            assert seen[0].id == said.id
