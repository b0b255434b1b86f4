"""What every database behind the queue owes; run on SQLite by the unit tests, and on a real PostgreSQL."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from central.queue.item import Asking, Item, Settling, read
from central.queue.store import Page, Store, Wanted
from models.contracts import wire
from models.contracts.errors import InputError, UnavailableError
from models.contracts.incident import Incident
from models.contracts.verdict import CENTRAL, PERSON, Verdict
from tests.fakes.verdicts import verdict

Check = Callable[[Store], None]

NOW, LATER, MINUTE = 1_000_000, 2_000_000, 60_000
STRANGE = "o.1\0\\0\\\0 \x1b[2J é"
HANDS = 8


def fresh() -> str:
    """Return a word that no other check has in its ids: they share a database."""
    return uuid4().hex


def found(*verdicts: Verdict | Incident) -> list[Asking | Settling]:
    read_ones = [read(wire.encode(each)) for each in verdicts]
    return [each for each in read_ones if each is not None]


def waiting(**changed: object) -> Verdict:
    return verdict(**{"route": "review", "source": fresh(), "confidence": 0.5} | changed)


def put(store: Store, *verdicts: Verdict, now_ms: int = NOW) -> None:
    store.put(found(*verdicts), now_ms)


def ids(page: Page) -> list[str]:
    return [item.id for item in page.items]


def what_asks_for_a_person_waits_and_nothing_else_does(store: Store) -> None:
    source = fresh()
    routes = ("review", "accepted", "escalated", "unsure")
    put(store, *(verdict(id=f"{source}.{route}", route=route, source=source) for route in routes))

    page = store.page(Wanted(source=source), NOW)
    assert ids(page) == [f"{source}.review"]
    assert page.total == 1
    assert page.items[0].verdict == verdict(id=f"{source}.review", route="review", source=source)


def the_gravest_come_first_and_of_equals_the_oldest(store: Store) -> None:
    source = fresh()
    for minute, (name, label) in enumerate(
        [("a", "benign"), ("b", "critical"), ("c", "suspicious"), ("d", "critical"), ("e", "benign")]
    ):
        put(store, waiting(id=f"{source}.{name}", label=label, source=source), now_ms=NOW + minute * MINUTE)

    order = [f"{source}.{name}" for name in "bdcae"]
    assert ids(store.page(Wanted(source=source), NOW)) == order
    assert ids(store.page(Wanted(source=source), NOW, limit=2, offset=1)) == order[1:3]
    assert store.page(Wanted(source=source), NOW, limit=2).total == 5
    assert [store.claim_next(Wanted(source=source), "alice", NOW, MINUTE).id for _ in order] == order  # type: ignore[union-attr]
    assert store.claim_next(Wanted(source=source), "bob", NOW, MINUTE) is None


def a_list_is_of_what_is_wanted(store: Store) -> None:
    source = fresh()
    one, two = f"{source}.1", f"{source}.2"
    put(store, waiting(id=one, source=source, gateway="gw-1"), waiting(id=two, source=source, label="benign"))
    store.claim(one, "alice", NOW, MINUTE)

    assert ids(store.page(Wanted(source=source, label="benign"), NOW)) == [two]
    assert ids(store.page(Wanted(source=source, gateway="gw-1"), NOW)) == [one]
    assert ids(store.page(Wanted(source=source, view="claimed"), NOW)) == [one]
    assert ids(store.page(Wanted(source=source, view="waiting"), NOW)) == [two]
    assert ids(store.page(Wanted(source=source, claimed_by="alice"), NOW)) == [one]
    assert ids(store.page(Wanted(source=source, kind="incident"), NOW)) == []
    assert ids(store.page(Wanted(source=source, view="waiting"), NOW + MINUTE)) == [one, two]


def a_higher_revision_replaces_what_waits_and_keeps_its_place(store: Store) -> None:
    source, first = fresh(), waiting(id=fresh())
    put(store, first)
    put(store, waiting(id=first.id, label="benign", revision=CENTRAL, source=source), now_ms=LATER)
    put(store, waiting(id=first.id, label="suspicious", revision=1), now_ms=LATER)

    item = store.show(first.id, LATER)
    assert (item.label, item.revision, item.source, item.gravity) == ("benign", CENTRAL, source, 0)
    assert (item.state, item.waiting_since_ms) == ("waiting", NOW)


def a_higher_verdict_that_needs_nobody_closes_what_waits(store: Store) -> None:
    item_id = fresh()
    put(store, waiting(id=item_id))
    store.claim(item_id, "alice", NOW, MINUTE)
    put(store, verdict(id=item_id, route="accepted", revision=CENTRAL))

    assert store.show(item_id, NOW).state == "superseded"
    with pytest.raises(UnavailableError, match="is superseded; nothing is left to claim"):
        store.claim(item_id, "bob", NOW, MINUTE)
    put(store, waiting(id=item_id, revision=CENTRAL + 1), now_ms=LATER)
    assert (store.show(item_id, LATER).state, store.show(item_id, LATER).waiting_since_ms) == ("waiting", LATER)


def any_order_and_repetition_of_deliveries_ends_the_same(store: Store) -> None:
    revisions = st.sampled_from([0, 1, 2, CENTRAL, CENTRAL + 1, PERSON])
    said = st.tuples(st.sampled_from("abc"), revisions)
    deliveries = st.dictionaries(said, st.sampled_from(["review", "accepted", "escalated", "unsure"]), max_size=12)

    @settings(max_examples=60)
    @given(st.data())
    def holds(data: st.DataObject) -> None:
        once = data.draw(deliveries)
        again = data.draw(st.lists(st.sampled_from(sorted(once)), max_size=8)) if once else []
        mixed = data.draw(st.permutations([*once, *again]))
        cuts = sorted(data.draw(st.sets(st.integers(0, len(mixed)))))
        here, there = fresh(), fresh()

        def verdict_of(prefix: str, what: tuple[str, int]) -> Verdict:
            name, revision = what
            label = "benign" if revision % 2 else "critical"
            return verdict(id=f"{prefix}.{name}", revision=revision, route=once[what], label=label)

        put(store, *(verdict_of(here, what) for what in sorted(once)))
        for start, stop in zip([0, *cuts], [*cuts, len(mixed)], strict=True):
            put(store, *(verdict_of(there, what) for what in mixed[start:stop]))

        for name in "abc":
            found_here, found_there = state_of(store, f"{here}.{name}"), state_of(store, f"{there}.{name}")
            assert found_here == found_there == expected(name, once)

    holds()


def state_of(store: Store, item_id: str) -> tuple[str, int, str] | None:
    try:
        item = store.show(item_id, NOW)
    except UnavailableError:
        return None
    return item.state, item.revision, item.label


def expected(name: str, said: dict[tuple[str, int], str]) -> tuple[str, int, str] | None:
    """What the contracts ask for, said another way: of several verdicts on one event the highest revision stands."""
    asking = [revision for (of, revision), route in said.items() if of == name and route == "review"]
    if not asking:
        return None
    highest = max(revision for of, revision in said if of == name)
    state = "waiting" if highest in asking else "superseded"
    return state, max(asking), "benign" if max(asking) % 2 else "critical"


def an_answered_item_is_never_opened_again(store: Store) -> None:
    item_id = fresh()
    put(store, waiting(id=item_id))
    answered = store.answer(item_id, "alice", "benign", LATER, note="ours")
    put(store, waiting(id=item_id), waiting(id=item_id, revision=CENTRAL))
    put(store, verdict(id=item_id, route="accepted", revision=PERSON))

    assert store.show(item_id, LATER) == answered
    assert (answered.state, answered.answer, answered.answered_by) == ("answered", "benign", "alice")
    assert (answered.answered_at_ms, answered.note, answered.answer_revision) == (LATER, "ours", PERSON)


def an_answer_stands_above_whatever_was_said(store: Store) -> None:
    item_id = fresh()
    put(store, waiting(id=item_id, revision=PERSON + 7), verdict(id=item_id, route="accepted", revision=PERSON + 9))

    assert store.answer(item_id, "alice", "benign", NOW).answer_revision == PERSON + 10
    with pytest.raises(UnavailableError, match="alice answered `benign`; `--correct` answers anew"):
        store.answer(item_id, "bob", "critical", NOW)
    assert store.answer(item_id, "bob", "critical", NOW, correct=True).answer_revision == PERSON + 11


def only_labels_of_the_task_are_answers(store: Store) -> None:
    item_id = fresh()
    put(store, waiting(id=item_id))
    before = store.show(item_id, NOW)

    with pytest.raises(InputError, match="found label `harmless`, wanted one of benign, suspicious, critical"):
        store.answer(item_id, "alice", "harmless", NOW)
    with pytest.raises(InputError, match=r"length <= 2000 - at `\$.note`"):
        store.answer(item_id, "alice", "benign", NOW, note="n" * 2001)
    assert store.show(item_id, NOW) == before


def what_one_has_claimed_is_not_anothers(store: Store) -> None:
    item_id = fresh()
    put(store, waiting(id=item_id))
    claimed = store.claim(item_id, "alice", NOW, MINUTE)

    assert claimed == store.show(item_id, NOW)
    assert (claimed.state, claimed.claimed_by, claimed.claimed_until_ms) == ("claimed", "alice", NOW + MINUTE)
    takes: Sequence[Callable[[], Item]] = (
        lambda: store.claim(item_id, "bob", NOW, MINUTE),
        lambda: store.release(item_id, "bob", NOW),
        lambda: store.answer(item_id, "bob", "benign", NOW),
    )
    for take in takes:
        with pytest.raises(UnavailableError, match=f"{item_id}: alice has it, for 1 min more; changed nothing"):
            take()
    assert store.claim(item_id, "alice", NOW, 2 * MINUTE).claimed_until_ms == NOW + 2 * MINUTE
    assert store.answer(item_id, "alice", "benign", NOW).state == "answered"


def a_claim_ends_by_itself_or_when_it_is_given_back(store: Store) -> None:
    item_id = fresh()
    put(store, waiting(id=item_id))
    store.claim(item_id, "alice", NOW, MINUTE)

    assert store.show(item_id, NOW + MINUTE).state == "waiting"
    store.claim(item_id, "bob", NOW + MINUTE, MINUTE)
    assert store.release(item_id, "bob", NOW + MINUTE).state == "waiting"
    with pytest.raises(UnavailableError, match="is waiting, and claimed by nobody; nothing to release"):
        store.release(item_id, "bob", NOW + MINUTE)
    assert store.answer(item_id, "alice", "benign", NOW + MINUTE).answered_by == "alice"


def two_who_claim_at_once_never_get_the_same(store: Store) -> None:
    source = fresh()
    put(store, *(waiting(id=f"{source}.{number}", source=source) for number in range(60)))

    def claim_all(by: str) -> list[str]:
        claims = iter(lambda: store.claim_next(Wanted(source=source), by, NOW, MINUTE), None)
        return [item.id for item in islice(claims, 1000) if item is not None]

    with ThreadPoolExecutor(HANDS) as hands:
        claimed = list(hands.map(claim_all, [f"analyst-{number}" for number in range(HANDS)]))
    everything = [item_id for ones in claimed for item_id in ones]
    assert sorted(everything) == sorted(f"{source}.{number}" for number in range(60))


def of_many_who_answer_at_once_one_does(store: Store) -> None:
    item_id = fresh()
    put(store, waiting(id=item_id))

    def answer(by: str) -> str:
        try:
            return store.answer(item_id, by, "benign", NOW).answered_by or ""
        except UnavailableError as error:
            return str(error)

    with ThreadPoolExecutor(HANDS) as hands:
        said = list(hands.map(answer, [f"analyst-{number}" for number in range(HANDS)]))
    winner = store.show(item_id, NOW).answered_by
    # The others waited for their turn, and found that they were too late.
    late = f"{item_id}: {winner} answered `benign`; `--correct` answers anew"
    assert sorted(said) == sorted([str(winner), *[late] * (HANDS - 1)])


def many_who_deliver_at_once_leave_one_item_of_each(store: Store) -> None:
    source = fresh()
    batch = [waiting(id=f"{source}.{number}", source=source) for number in range(200)]

    with ThreadPoolExecutor(HANDS) as hands:
        list(hands.map(lambda start: put(store, *batch[start:], *batch[:start]), range(0, 200, 25)))
    assert store.page(Wanted(source=source), NOW).total == 200


def text_of_strangers_is_kept_to_the_character(store: Store) -> None:
    prefix = fresh()
    put(store, waiting(id=prefix + STRANGE, text=STRANGE))

    item = store.answer(prefix + STRANGE, STRANGE, "benign", NOW, note=STRANGE)
    assert store.show(prefix + STRANGE, NOW) == item
    assert (item.id, item.verdict.text, item.answered_by, item.note) == (prefix + STRANGE, STRANGE, STRANGE, STRANGE)


def what_is_owed_is_what_was_answered_until_it_is_told(store: Store) -> None:
    source = fresh()
    put(store, *(waiting(id=f"{source}.{number}", source=source) for number in range(3)))
    one, two, three = (store.answer(f"{source}.{number}", "alice", "benign", NOW) for number in range(3))

    assert owed(store, source) == [one.id, two.id, three.id]
    corrected = store.answer(one.id, "alice", "critical", LATER, correct=True)
    store.published([one, two, three], {three.id: "too large"}, LATER)

    assert owed(store, source) == [one.id]  # what was told of it is not what stands
    assert store.show(two.id, LATER).published_at_ms == LATER
    assert store.show(three.id, LATER).unpublishable == "too large"
    store.published([corrected], {}, LATER)
    store.published([one], {}, LATER)  # by another, who was late: the last word may be the older one
    assert owed(store, source) == [one.id]


def owed(store: Store, source: str) -> list[str]:
    return [item.id for item in store.unpublished(LATER, limit=1000) if item.source == source]


def the_counts_say_how_it_stands(store: Store) -> None:
    before = store.counts(NOW)
    item_ids = [fresh() for _ in range(5)]
    put(store, *(waiting(id=item_id) for item_id in item_ids), now_ms=NOW - MINUTE)
    put(store, verdict(id=item_ids[0], route="accepted", revision=1), verdict(id=fresh(), revision=1))
    store.answer(item_ids[1], "alice", "benign", NOW)
    store.claim(item_ids[2], "alice", NOW, MINUTE)

    after = store.counts(NOW)
    assert [
        getattr(after, name) - getattr(before, name)
        for name in ("waiting", "claimed", "answered", "superseded", "unpublished", "unpublishable")
    ] == [2, 1, 1, 1, 1, 0]
    assert after.open_by_label["critical"] - before.open_by_label.get("critical", 0) == 3
    assert after.oldest_ms == NOW - MINUTE


def what_was_superseded_long_ago_is_forgotten_and_nothing_else(store: Store) -> None:
    kept, old, young = fresh(), fresh(), fresh()
    put(store, waiting(id=kept), now_ms=1)
    put(store, waiting(id=old), verdict(id=old, revision=1), verdict(id=fresh(), revision=1), now_ms=1)
    put(store, waiting(id=young), verdict(id=young, revision=1), now_ms=5)
    store.answer(kept, "alice", "benign", 1)

    assert [store.forget(5, most=1), store.forget(5, most=9), store.forget(5, most=9)] == [1, 1, 0]
    assert state_of(store, old) is None
    assert [store.show(item_id, NOW).state for item_id in (kept, young)] == ["answered", "superseded"]


CHECKS: tuple[Check, ...] = (
    what_asks_for_a_person_waits_and_nothing_else_does,
    the_gravest_come_first_and_of_equals_the_oldest,
    a_list_is_of_what_is_wanted,
    a_higher_revision_replaces_what_waits_and_keeps_its_place,
    a_higher_verdict_that_needs_nobody_closes_what_waits,
    any_order_and_repetition_of_deliveries_ends_the_same,
    an_answered_item_is_never_opened_again,
    an_answer_stands_above_whatever_was_said,
    only_labels_of_the_task_are_answers,
    what_one_has_claimed_is_not_anothers,
    a_claim_ends_by_itself_or_when_it_is_given_back,
    two_who_claim_at_once_never_get_the_same,
    of_many_who_answer_at_once_one_does,
    many_who_deliver_at_once_leave_one_item_of_each,
    text_of_strangers_is_kept_to_the_character,
    what_is_owed_is_what_was_answered_until_it_is_told,
    the_counts_say_how_it_stands,
    what_was_superseded_long_ago_is_forgotten_and_nothing_else,
)
