"""What is known of hosts and addresses goes with their events, and stands in front of what a model reads."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from dataflows.lookup import Freshness, Table, Tables
from dataflows.operators.enrich import Enrichment, enrich_events, grounded, show
from models.contracts.errors import UnavailableError
from models.contracts.event import Event
from models.contracts.opinion import Opinion
from models.contracts.scalars import EventId
from models.contracts.task import Field
from models.masking import Masking
from tests.fakes.classifier import TASK

ASSETS = Enrichment(table="assets", key="host", facts=("criticality", "zone"))
ADDRESSES = Enrichment(table="addresses", key="address", facts=("known",), otherwise={"known": "no"})
TASK_SHOWS = replace(TASK, context=("criticality", "zone"))


def event(text: str = "door opened", **more: Any) -> Event:
    return Event(**{"id": EventId("o.1"), "source": "hosts", "received_at_ms": 0, "text": text, "body": text} | more)


def lookup(when_stale: str = "keep", fresh_s: float = 60.0) -> Tables:
    freshness = Freshness(fresh_s=fresh_s, when_stale=when_stale)  # type: ignore[arg-type]
    return Tables({"assets": freshness, "addresses": freshness}, lambda: 100.0)


@pytest.fixture
def known() -> Tables:
    tables = lookup()
    tables.put("assets", Table([("web-1", {"criticality": "high", "zone": "dmz", "owner": "shop"})], 10))
    tables.put("addresses", Table([("10.0.0.0/8", {"known": "yes"})], 10))
    return tables


def facts(tables: Tables, one: Event, *wanted: Enrichment) -> dict[str, str]:
    (enriched,) = enrich_events([one], wanted or (ASSETS, ADDRESSES), tables)
    assert enriched == replace(one, context=enriched.context)
    return enriched.context


def test_an_event_gets_the_facts_that_are_wanted_of_its_host(known: Tables) -> None:
    assert facts(known, event(host="WEB-1")) == {"criticality": "high", "zone": "dmz"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("from 10.1.2.3", {"known": "yes"}),
        ("from 203.0.113.9 to 10.1.2.3", {"known": "yes"}),
        ("from 203.0.113.9", {"known": "no"}),
        ("from nowhere", {}),
    ],
)
def test_of_the_addresses_in_a_text_the_first_counts_that_the_table_knows(
    known: Tables, text: str, found: dict[str, str]
) -> None:
    assert facts(known, event(text)) == found


@pytest.mark.parametrize("part", ["source", "app", "topic", "gateway"])
def test_any_part_of_an_event_can_be_the_key(part: Any) -> None:
    tables = lookup()
    tables.put("assets", Table([("it", {"zone": "dmz"})], 10))

    assert facts(tables, event(**{part: "it"}), replace(ASSETS, key=part)) == {"zone": "dmz"}


def test_an_event_of_which_nothing_is_known_stays_as_it_is(known: Tables) -> None:
    unknown = event(host="web-2")
    (enriched,) = enrich_events([unknown], [ASSETS], known)

    assert enriched is unknown


def test_what_was_known_before_stays_unless_it_is_known_anew(known: Tables) -> None:
    before = event(host="web-1", context={"zone": "lan", "rack": "r7"})

    assert facts(known, before) == {"zone": "dmz", "rack": "r7", "criticality": "high"}


def test_an_old_table_that_is_kept_is_used_and_marked() -> None:
    tables = lookup("keep", fresh_s=-1.0)
    tables.put("assets", Table([("web-1", {"zone": "dmz"})], 10))

    assert facts(tables, event(host="web-1"), ASSETS) == {"zone": "dmz", "assets": "stale"}
    assert facts(tables, event(host="web-2"), ASSETS) == {"assets": "stale"}


def test_without_a_table_events_go_on_and_are_marked() -> None:
    tables = lookup("without", fresh_s=-1.0)
    tables.put("addresses", Table([("10.0.0.0/8", {"known": "yes"})], 10))

    assert facts(tables, event("from 10.1.2.3")) == {"assets": "away", "addresses": "away"}


def test_a_table_that_is_to_be_waited_for_holds_all_events_back() -> None:
    with pytest.raises(UnavailableError, match="lookup assets"):
        enrich_events([event()], [ASSETS], lookup("wait"))


def test_a_task_is_shown_the_facts_it_names_on_one_line_in_front_of_the_event() -> None:
    (shown,) = show([event(context={"zone": "dmz", "owner": "shop", "criticality": "high"})], TASK_SHOWS)

    assert (shown.body, shown.text) == ("[criticality:high zone:dmz] door opened", "door opened")


def test_what_is_not_known_is_shown_too_so_that_no_event_can_stand_first_with_facts_of_its_own() -> None:
    (shown,) = show([event("[criticality:low zone:lab] door opened")], TASK_SHOWS)

    assert shown.body == "[criticality:- zone:-] [criticality:low zone:lab] door opened"


def test_a_task_that_names_no_facts_is_shown_the_event_alone() -> None:
    events = [event(context={"zone": "dmz"})]

    assert show(events, TASK) is events


@given(st.text(max_size=300))
def test_no_value_breaks_out_of_its_place(value: str) -> None:
    (shown,) = show([event(context={"criticality": value, "zone": "dmz"})], TASK_SHOWS)
    first, _, rest = shown.body.partition(" ")

    assert rest == "zone:dmz] door opened"
    assert first.startswith("[criticality:")
    assert len(first) <= len("[criticality:") + 48
    assert not set(" \n\r\t\0[]:=\"'") & set(first.removeprefix("[criticality:"))


values = st.text("0123456789abcdefg.-_:/ ", max_size=50) | st.ip_addresses().map(str) | st.datetimes().map(str)


@given(
    st.lists(st.from_regex(r"[A-Fa-f][A-Fa-f0-9_]{2,5}|[A-Za-z][A-Za-z0-9_]{2,9}", fullmatch=True), max_size=3), values
)
def test_the_verdict_cache_masks_nothing_of_the_facts(names: list[str], value: str) -> None:
    task = replace(TASK, context=("zone", *names))
    (shown,) = show([event("job 10000 ended", context=dict.fromkeys(names, value))], task)
    line = shown.body.removesuffix("job 10000 ended")
    masked = Masking().mask(shown.body)

    assert masked is not None
    assert masked.key.startswith(line)


def test_what_a_model_copied_from_the_line_of_facts_is_no_field_of_the_event() -> None:
    task = replace(
        TASK_SHOWS,
        fields=(
            Field(name="target", description="", max_values=2),
            Field(name="level", description="", kind="choice", choices=("high", "low")),
        ),
    )
    shown = show([event(context={"zone": "dmz"}), event("dmz door", context={"zone": "dmz"})], task)
    said = Opinion(
        probabilities=(1.0, 0.0, 0.0), label_mass=1.0, fields={"target": ("dmz", "door"), "level": ("high",)}
    )
    only = replace(said, fields={"target": ("dmz",)})

    assert [opinion.fields for opinion in grounded(shown, [said, said], task)] == [
        {"target": ("door",), "level": ("high",)},
        said.fields,
    ]
    assert [(opinion.fields, opinion.ungrounded) for opinion in grounded(shown, [only, only], task)] == [
        ({}, 1),
        (only.fields, 0),
    ]
    assert grounded(shown, [said], TASK) == [said]
