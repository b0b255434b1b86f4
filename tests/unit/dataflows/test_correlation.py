"""One burst is one incident, whatever comes late, twice, or is taken back; and it is all bounded."""

import pickle
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from dataflows.correlation import SHARDS, IncidentRule, Shard, Sighting
from models.contracts.incident import Incident
from models.contracts.scalars import EventId
from models.contracts.wire import encode
from tests.fakes.verdicts import verdict

S = 1000
RULE = IncidentRule(name="brute", labels=("suspicious", "critical"), at_least=3, within_s=60, lateness_s=10)
PROMPT = replace(RULE, lateness_s=0.0)


def seen(number: int, at_s: float, *, key: str = "a", revision: int = 0, label: str = "suspicious") -> Sighting:
    said = verdict(id=EventId(f"o.{number}"), label=label or "benign", revision=revision, gateway="gw-1")
    return Sighting(key, said.id, revision, round(at_s * S), label, "gw-1", encode(said) if label else b"")


def ids(incident: Incident) -> list[str]:
    return [each.id for each in incident.verdicts] + list(incident.more)


class Clocked:
    """A shard and our clock, which stands still unless a test moves it."""

    def __init__(self, rule: IncidentRule = PROMPT, state: Any = None) -> None:
        self.now_ms = 1_700_000_000_000
        self.shard = Shard(rule, self.now_ms, *([] if state is None else [state]))
        self.told: list[Incident] = []

    def take(self, *sightings: Sighting) -> list[Incident]:
        return self._tell(self.shard.take(sightings, self.now_ms))

    def wait(self, seconds: float) -> list[Incident]:
        """Let time pass, waking the shard whenever it is due, as the flow does."""
        until_ms = self.now_ms + round(seconds * S)
        told = []
        while self.shard.due_ms is not None and self.shard.due_ms <= until_ms:
            self.now_ms = max(self.now_ms, self.shard.due_ms)
            told += self._tell(self.shard.wake(self.now_ms))
        self.now_ms = until_ms
        return told

    def _tell(self, told: list[Incident]) -> list[Incident]:
        self.told += told
        return told


def test_what_is_enough_within_the_window_is_one_incident_with_its_events() -> None:
    clocked = Clocked()

    assert clocked.take(seen(1, 0), seen(2, 20)) == []
    (incident,) = clocked.take(seen(3, 40, label="critical"))

    assert incident == Incident(
        id=incident.id,
        rule="brute",
        key="a",
        revision=0,
        state="open",
        first_ms=0,
        last_ms=40 * S,
        count=3,
        late=0,
        labels={"critical": 1, "suspicious": 2},
        gateways=("gw-1",),
        verdicts=incident.verdicts,
        more=(),
        unnamed=0,
    )
    assert [(each.id, each.label) for each in incident.verdicts] == [
        ("o.1", "suspicious"),
        ("o.2", "suspicious"),
        ("o.3", "critical"),
    ]


def test_as_many_that_are_never_within_one_window_are_no_incident() -> None:
    clocked = Clocked()
    clocked.take(*(seen(number, 31 * number) for number in range(20)))

    assert clocked.told == []


def test_two_keys_are_counted_apart() -> None:
    clocked = Clocked()
    clocked.take(*(seen(number, number, key="ab"[number % 2]) for number in range(4)))
    assert clocked.told == []
    clocked.take(seen(4, 4, key="a"), seen(5, 5, key="b"))

    assert sorted(incident.key for incident in clocked.told) == ["a", "b"]
    assert len({incident.id for incident in clocked.told}) == 2


def test_a_burst_that_goes_on_is_told_under_one_id_and_no_more_often_than_the_rule_says() -> None:
    clocked = Clocked()
    for number in range(300):
        clocked.take(seen(number, number))
        clocked.wait(1)
    clocked.wait(120)

    assert {incident.id for incident in clocked.told} == {clocked.told[0].id}
    assert [incident.state for incident in clocked.told] == ["open"] * 6 + ["closed"]
    assert [incident.count for incident in clocked.told] == [3, 62, 122, 182, 242, 300, 300]
    revisions = [incident.revision for incident in clocked.told]
    assert revisions == sorted(set(revisions))


def test_a_pause_longer_than_the_window_ends_an_incident_and_what_follows_is_another() -> None:
    clocked = Clocked()
    clocked.take(
        *(seen(number, number) for number in range(3)), *(seen(10 + number, 70 + number) for number in range(3))
    )

    assert [(incident.state, incident.count) for incident in clocked.told] == [("closed", 3), ("open", 3)]
    assert len({incident.id for incident in clocked.told}) == 2


def test_an_incident_ends_when_nothing_comes_any_more_and_its_key_is_forgotten() -> None:
    clocked = Clocked(RULE)
    clocked.take(*(seen(number, number) for number in range(3)))

    assert [incident.state for incident in clocked.wait(10)] == ["open"]
    assert [incident.state for incident in clocked.wait(60)] == ["closed"]
    assert clocked.shard.is_empty
    assert clocked.shard.due_ms is None


def test_a_key_that_does_not_come_to_an_incident_is_forgotten_too() -> None:
    clocked = Clocked(RULE)
    clocked.take(seen(1, 0))
    clocked.wait(70)

    assert clocked.shard.is_empty


def test_one_that_comes_again_is_not_counted_twice() -> None:
    clocked = Clocked()
    clocked.take(seen(1, 0), seen(1, 0), seen(2, 1), seen(2, 1))
    assert clocked.told == []
    clocked.take(seen(3, 2), seen(3, 2), seen(1, 0))
    clocked.wait(120)

    assert [incident.count for incident in clocked.told] == [3, 3]
    assert [incident.revision for incident in clocked.told] == [0, 1]


def test_a_label_that_a_later_revision_takes_back_does_not_count() -> None:
    clocked = Clocked()
    clocked.take(seen(1, 0), seen(2, 1), seen(2, 1, revision=1000, label=""), seen(3, 2))

    assert clocked.told == []
    assert ids(clocked.take(seen(4, 3))[0]) == ["o.1", "o.3", "o.4"]


def test_a_label_that_is_taken_back_before_it_comes_does_not_count_either() -> None:
    clocked = Clocked()
    clocked.take(seen(1, 0), seen(2, 1), seen(3, 2, revision=1000, label=""), seen(3, 2))

    assert clocked.told == []


def test_an_incident_of_which_too_little_is_left_is_withdrawn_at_once_and_stands_again_when_there_is_enough() -> None:
    clocked = Clocked()
    clocked.take(*(seen(number, number) for number in range(3)))
    clocked.take(seen(1, 1, revision=1, label=""))
    clocked.take(seen(1, 1, revision=2, label="critical"))

    assert [(each.state, each.count, each.labels, each.revision) for each in clocked.told] == [
        ("open", 3, {"suspicious": 3}, 0),
        ("withdrawn", 2, {"suspicious": 2}, 1),
        ("open", 3, {"critical": 1, "suspicious": 2}, 2),
    ]
    assert ids(clocked.told[1]) == ["o.0", "o.2"]


def test_an_incident_that_is_taken_back_before_anybody_heard_of_it_is_never_told() -> None:
    clocked = Clocked()
    clocked.take(*(seen(number, number) for number in range(3)), seen(1, 1, revision=1, label=""))
    clocked.wait(120)

    assert clocked.told == []


def test_a_higher_revision_with_another_label_that_counts_stands_in_for_the_lower() -> None:
    clocked = Clocked()
    clocked.take(*(seen(number, number) for number in range(3)))
    clocked.take(seen(0, 0, revision=1000, label="critical"), seen(0, 0, revision=1))
    clocked.wait(60)

    assert clocked.told[-1].labels == {"critical": 1, "suspicious": 2}
    assert clocked.told[-1].verdicts[0].revision == 1000


def test_what_comes_within_the_lateness_stands_in_its_place() -> None:
    clocked = Clocked(RULE)
    clocked.take(seen(3, 8), seen(1, 0), seen(2, 4))
    (incident,) = clocked.wait(10)

    assert ids(incident) == ["o.1", "o.2", "o.3"]
    assert (incident.first_ms, incident.late) == (0, 0)


def test_what_comes_later_than_that_joins_an_open_incident_and_is_counted_as_late() -> None:
    clocked = Clocked()
    clocked.take(*(seen(number, 100 + number) for number in range(3)))
    clocked.take(seen(9, 20))
    incident = clocked.wait(60)[-1]

    assert (incident.count, incident.late, incident.first_ms) == (4, 1, 20 * S)
    assert incident.id == clocked.told[0].id


def test_what_comes_later_helps_to_make_an_incident_while_it_is_within_the_window() -> None:
    clocked = Clocked()
    clocked.take(seen(1, 50), seen(2, 60))
    (incident,) = clocked.take(seen(3, 10))

    assert (ids(incident), incident.late, incident.first_ms) == (["o.3", "o.1", "o.2"], 1, 10 * S)


def test_what_comes_too_late_for_anything_is_counted() -> None:
    clocked = Clocked()
    clocked.take(seen(1, 100), seen(2, 39), seen(3, 101))

    assert clocked.told == []
    assert +clocked.shard.counts == {"late": 1}


def test_a_gateway_whose_clock_is_ahead_makes_nobody_late() -> None:
    clocked = Clocked(RULE)
    now_s = clocked.now_ms / S

    clocked.take(seen(1, now_s + 300), seen(2, now_s), seen(3, now_s + 1e6))
    (incident,) = clocked.wait(10)

    assert (incident.count, incident.late, incident.last_ms) == (3, 0, 1_700_000_000_000)
    assert clocked.shard.counts["late"] == 0


def test_of_too_many_keys_the_longest_untouched_without_an_incident_goes_and_is_counted() -> None:
    clocked = Clocked(replace(PROMPT, most_keys=3 * SHARDS))
    clocked.take(*(seen(number, number, key="burst") for number in range(3)))
    clocked.take(seen(10, 10, key="a"), seen(11, 11, key="b"), seen(12, 12, key="a"), seen(13, 13, key="c"))
    assert +clocked.shard.counts == {"evicted": 1}

    clocked.take(seen(14, 14, key="a"), seen(15, 15, key="b"), seen(16, 16, key="b"))
    assert [incident.key for incident in clocked.told] == ["burst", "a"]


def test_where_all_have_incidents_the_longest_untouched_is_closed_and_told() -> None:
    clocked = Clocked(replace(PROMPT, most_keys=SHARDS))
    clocked.take(*(seen(number, number, key="a") for number in range(3)), seen(4, 4, key="b"))

    assert [(incident.key, incident.state) for incident in clocked.told] == [("a", "closed")]


def test_what_waits_under_one_key_is_bounded_and_none_of_it_is_lost() -> None:
    clocked = Clocked(replace(RULE, lateness_s=3600.0, most_events=50))
    clocked.take(*(seen(number, number / 100) for number in range(500)))

    assert clocked.told[0].count == 500 - 50


def test_an_incident_has_the_first_verdicts_whole_names_more_and_counts_the_rest() -> None:
    clocked = Clocked(replace(PROMPT, most_events=150))
    clocked.take(*(seen(number, number / 100) for number in range(500)))
    incident = clocked.wait(61)[-1]

    assert [each.id for each in incident.verdicts] == [f"o.{number}" for number in range(100)]
    assert incident.more == tuple(f"o.{number}" for number in range(100, 150))
    assert (incident.unnamed, incident.count) == (350, 500)


def test_verdicts_on_long_texts_are_whole_up_to_so_many_bytes() -> None:
    clocked = Clocked()
    long = encode(verdict(text="x" * 3000))
    clocked.take(*(replace(seen(number, number / 100), verdict=long) for number in range(100)))
    (incident,) = clocked.wait(61)[-1:]

    assert len(incident.verdicts) == (256 << 10) // len(long)
    assert len(incident.more) == 100 - len(incident.verdicts)


def take_back(*numbers: int) -> list[Sighting]:
    return [seen(number, 0, revision=1000, label="") for number in numbers]


def test_where_the_first_verdicts_are_all_taken_back_the_newest_stand_in_their_place() -> None:
    clocked = Clocked()
    clocked.take(*(seen(number, number / 100) for number in range(300)))
    clocked.take(*take_back(*range(100)))
    incident = clocked.wait(61)[-1]

    assert (incident.state, incident.count) == ("closed", 200)
    assert [each.id for each in incident.verdicts] == [f"o.{number}" for number in range(290, 300)]
    assert incident.more == tuple(f"o.{number}" for number in range(100, 290))


def test_where_those_in_reserve_are_taken_back_too_the_next_to_come_is_whole() -> None:
    clocked = Clocked()
    clocked.take(*(seen(number, number / 100) for number in range(300)))
    clocked.take(*take_back(*range(100), *range(290, 300)), seen(300, 3))
    incident = clocked.wait(61)[-1]

    assert (incident.count, [each.id for each in incident.verdicts]) == (191, ["o.300"])


def test_an_incident_of_which_only_names_are_left_goes_on_and_ends() -> None:
    clocked = Clocked(replace(PROMPT, update_s=10.0))
    clocked.take(*(seen(number, number / 100) for number in range(300)))
    clocked.take(*take_back(*range(100), *range(290, 300)))
    told = clocked.wait(61)

    assert [(each.state, each.count, each.verdicts, len(each.more)) for each in told] == [
        ("open", 190, (), 190),
        ("closed", 190, (), 190),
    ]


def test_what_is_in_reserve_survives_a_restart_and_an_older_state_has_none() -> None:
    before = Clocked()
    before.take(*(seen(number, number / 100) for number in range(300)))
    trails, taken_back = before.shard.state()
    (*trail, found, times) = trails[0]
    older = ((*trail, found[:-1], times),), taken_back
    again = [Clocked(state=state) for state in (before.shard.state(), older)]
    for clocked in again:
        clocked.take(*take_back(*range(100)))

    assert [len(clocked.wait(61)[-1].verdicts) for clocked in again] == [10, 0]


@pytest.mark.parametrize(
    "long",
    [
        {"text": "x" * 300_000},
        {"text": "\0щ" * 50_000},
        {"fields": {"source": ("x" * 300_000,)}},
        {"text": "y" * 3000, "host": "x" * 300_000, "context": {"owner": "x" * 300_000}},
    ],
    ids=["text", "escapes", "fields", "both"],
)
def test_however_long_verdicts_are_an_incident_has_some_and_its_state_is_bounded(long: dict[str, Any]) -> None:
    clocked = Clocked(replace(RULE, lateness_s=3600.0, most_events=50))
    line = encode(verdict(**long))
    clocked.take(*(replace(seen(number, number / 100), verdict=line) for number in range(100)))

    assert sum(len(each) for each in strings(clocked.shard.state())) <= 110 * (4 << 10)
    assert clocked.told[0].count == 50
    assert len(clocked.told[0].verdicts) == 50
    assert {each.truncated for each in clocked.told[0].verdicts} == {True}
    assert len(encode(clocked.told[0])) < 300_000


def strings(state: Any) -> list[bytes]:
    if isinstance(state, bytes):
        return [state]
    return [each for part in state for each in strings(part)] if isinstance(state, tuple) else []


def test_of_a_long_text_an_incident_has_the_beginning() -> None:
    clocked = Clocked()
    text = "Failed password for root " * 1000
    clocked.take(*(replace(seen(number, number), verdict=encode(verdict(text=text))) for number in range(3)))
    found = clocked.told[0].verdicts[0]

    assert text.startswith(found.text)
    assert 3 << 10 < len(encode(found)) <= 4 << 10


def test_a_revision_with_a_longer_text_does_not_make_an_incident_too_large() -> None:
    clocked = Clocked()
    long = encode(verdict(text="x" * 3500))
    clocked.take(*(seen(number, number / 100) for number in range(100)))
    clocked.take(*(replace(seen(number, 1, revision=1), verdict=long) for number in range(100)))
    incident = clocked.wait(61)[-1]

    assert len(encode(incident)) < 300_000
    assert (incident.count, len(incident.verdicts) + len(incident.more)) == (100, 100)


def test_a_clock_that_is_put_back_does_not_keep_an_incident_open() -> None:
    clocked = Clocked(RULE)
    clocked.take(*(seen(number, number) for number in range(3)))
    clocked.now_ms -= 3600 * S
    clocked.shard.wake(clocked.now_ms)

    assert [incident.state for incident in clocked.wait(80)] == ["open", "closed"]


def test_a_rule_that_could_never_have_enough_is_refused() -> None:
    with pytest.raises(ValueError, match="rule r: found `at_least` 7, wanted at most 5"):
        IncidentRule(name="r", labels=("a",), at_least=7, most_events=5)


said = st.tuples(
    st.integers(0, 400),
    st.sampled_from("ab"),
    st.sampled_from(["suspicious", "critical"]),
    st.sampled_from([None, None, "", "critical"]),  # what a later revision says
)


def arrivals(sightings: list[Sighting], chance: Random) -> list[Sighting]:
    """Shuffle so that nothing comes behind what occurred later by the lateness."""
    return sorted(sightings, key=lambda each: each.at_ms + chance.random() * RULE.lateness_s * S * 0.999)


def final(told: list[Incident]) -> dict[str, Incident]:
    return {incident.id: incident for incident in told}


@given(st.lists(said, max_size=60), st.randoms(use_true_random=False), st.data())
def test_within_the_lateness_the_order_of_arrival_changes_nothing(
    events: list[tuple[int, str, str, str | None]], chance: Random, data: st.DataObject
) -> None:
    sightings = [seen(number, at_s, key=key, label=label) for number, (at_s, key, label, _) in enumerate(events)]
    sightings += [
        seen(number, at_s, key=key, label=later, revision=1000)
        for number, (at_s, key, _, later) in enumerate(events)
        if later is not None
    ]
    in_order, shuffled = Clocked(RULE), Clocked(RULE)
    in_order.take(*sorted(sightings, key=lambda each: (each.at_ms, each.id)))
    left = arrivals(sightings, chance)
    while left:  # in batches as they come
        size = data.draw(st.integers(1, len(left)))
        shuffled.take(*left[:size])
        left = left[size:]
    in_order.wait(100)
    shuffled.wait(100)

    assert final(shuffled.told) == final(in_order.told)
    assert all(incident.state == "closed" for incident in final(in_order.told).values())


revised = st.tuples(st.integers(0, 30), st.integers(0, 3), st.sampled_from(["", "suspicious", "critical"]))


@given(st.lists(revised, max_size=80), st.data())
def test_a_replay_after_any_prefix_tells_the_same_incidents(
    events: list[tuple[int, int, str]], data: st.DataObject
) -> None:
    """The state of any moment, and then what came since: once more what was told since, and nothing else."""
    sightings = [
        seen(number, 7 * number, revision=revision, label=label or ("suspicious" if revision == 0 else ""))
        for number, revision, label in events
    ]
    kept_at = data.draw(st.integers(0, len(sightings)))
    once, before = Clocked(), Clocked()
    once.take(*sightings)
    once.wait(100)
    before.take(*sightings[:kept_at])
    again = Clocked(state=pickle.loads(pickle.dumps(before.shard.state())))  # noqa: S301 - as the recovery store does
    again.take(*sightings[kept_at:])
    again.wait(100)

    assert final(before.told + again.told) == final(once.told)


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 20)), max_size=200))
def test_the_state_stays_within_its_bounds_whatever_comes(events: list[tuple[int, int]]) -> None:
    clocked = Clocked(replace(RULE, most_keys=4 * SHARDS, most_events=10))
    clocked.take(*(seen(number, at_s, key=f"k{key}") for number, (at_s, key) in enumerate(events)))

    assert len(clocked.shard) <= 4
    assert all(len(waiting) <= 10 for _, waiting, *_ in clocked.shard.state()[0])
    assert all(incident.count == len(ids(incident)) + incident.unnamed for incident in clocked.told)
