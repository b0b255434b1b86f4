"""What the verdict cache forgets, lets go of for others, and keeps from one process to the next."""

from threading import Thread

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from dataflows.cache.entry import Entry
from tests.fakes.answering import Answering, jobs
from tests.fakes.classifier import BENIGN, CRITICAL, release

DAY = 24 * 3600.0


def test_a_new_release_empties_the_cache_at_once() -> None:
    answering = Answering(ask_first=1)
    answering.say("job 10000 ended", "job 10001 ended")
    answering.classifier._release = release(2)

    assert answering.say("job 10002 ended")[0].cached is None
    assert len(answering.cache) == 1


@pytest.mark.parametrize(
    ("rules", "kept"),
    [
        ({"masks": ("address", "number")}, False),
        ({"known_addresses": ("10.0.0.1",)}, False),
        ({"audit_rate": 0.001}, True),
        ({"max_entries": 10}, True),
    ],
)
def test_a_policy_that_masks_otherwise_empties_the_cache_and_no_other_does(
    rules: dict[str, object], *, kept: bool
) -> None:
    answering = Answering(ask_first=1)
    answering.say("job 10000 ended")
    answering.rule(**rules)

    assert (answering.say("job 10001 ended")[0].cached is not None) == kept


def test_a_template_is_learnt_anew_when_it_is_old_however_often_it_is_hit() -> None:
    answering = Answering(ask_first=1, max_age_s=7 * DAY, max_idle_s=2 * DAY)
    for _ in range(9):
        answering.say("job 10000 ended", "job 10001 ended")
        answering.now += DAY

    assert answering.asked == ["job 10000 ended", "job 10000 ended"]
    assert answering.cache.counts["expired"] == 1


def test_a_template_that_nobody_needs_is_forgotten() -> None:
    answering = Answering(ask_first=1, max_idle_s=DAY)
    answering.say("job 10000 ended", "job 10001 ended")
    answering.now += DAY - 1
    assert answering.say("job 10002 ended")[0].cached is not None
    answering.now += DAY + 1
    assert answering.say("job 10003 ended")[0].cached is None


def test_a_clock_that_goes_back_makes_no_template_younger() -> None:
    answering = Answering(ask_first=1)
    answering.say("job 10000 ended")
    answering.now -= 30 * DAY

    assert answering.say("job 10001 ended")[0].cached is None


@given(st.integers(1, 8), st.lists(st.integers(0, 15), max_size=120))
@settings(max_examples=60)
def test_there_are_never_more_entries_than_the_policy_allows(most: int, numbers: list[int]) -> None:
    answering = Answering(ask_first=1, max_entries=most)
    for number in numbers:
        answering.say(f"{'abcdefghijklmnop'[number]} opened")
        assert len(answering.cache) <= most


def test_of_templates_that_are_not_needed_the_one_that_was_needed_longest_ago_goes_first() -> None:
    answering = Answering(ask_first=1, max_entries=10)
    answering.say(*(f"{letter} opened" for letter in "abcdefghij"))
    answering.say("a opened", "k opened")

    assert answering.say("a opened")[0].cached is not None
    assert answering.say("b opened")[0].cached is None


def test_fewer_entries_than_there_are_let_go_of_the_others() -> None:
    answering = Answering(ask_first=1, max_entries=10)
    for _ in range(2):
        answering.say(*(f"{letter} opened" for letter in "abcdefghij"))
    answering.rule(max_entries=5)
    answering.say("h opened")

    kept = [key for key, _ in answering.cache.listing()]
    assert len(kept) == 5
    assert all(verdict.cached for verdict in answering.say(*kept))


def test_what_was_busy_once_gives_its_place_away_in_time() -> None:
    answering = Answering(ask_first=1, max_entries=10)
    answering.say(*["a opened"] * 61, *[f"{letter} opened" for letter in "bcdefgh"] * 2)
    for _ in range(50):
        answering.say(*(f"{letter} opened" for letter in "bcdefghz"))
    answering.say("i opened", "j opened", "k opened")

    assert [verdict.cached is not None for verdict in answering.say("z opened", "a opened")] == [True, False]


def test_another_thread_has_a_template_forgotten_with_the_next_events() -> None:
    answering = Answering(ask_first=1)
    answering.say("job 10000 ended", "door opened")
    entry = answering.entry("job 10000 ended")
    assert isinstance(entry, Entry)

    thread = Thread(target=answering.cache.forget, args=(entry.name,))
    thread.start()
    thread.join()
    assert len(answering.cache) == 2
    said = answering.say("job 10001 ended", "door opened")

    assert [verdict.cached is not None for verdict in said] == [False, True]


def test_all_is_forgotten_and_so_are_refusals_by_name() -> None:
    answering = Answering(lambda text: CRITICAL if "10001" in text else BENIGN, ask_first=2)
    answering.say(*jobs(2), "door opened")
    ((_, refusal),) = answering.cache.refusals()
    answering.cache.forget("no such name")
    answering.cache.forget(refusal.name)
    answering.say("door opened")
    assert (answering.cache.refusals(), len(answering.cache)) == ([], 1)
    answering.cache.forget()
    answering.say("window opened")

    assert len(answering.cache) == 1


def test_templates_are_forgotten_also_while_the_cache_is_off() -> None:
    answering = Answering(ask_first=1)
    answering.say("door opened")
    answering.cache.forget()
    answering.rule(enabled=False)
    answering.say("door opened")

    assert len(answering.cache) == 0


def test_a_cache_that_was_kept_answers_again_and_refuses_again() -> None:
    before = Answering(lambda text: CRITICAL if "bad 10001" in text else BENIGN, ask_first=2)
    before.say(*jobs(3), "bad 10000", "bad 10001", "run 10000")
    after = Answering(ask_first=2)
    after.cache.follow(after.classifier.release, after.policy)
    after.cache.restore(list(before.cache.listing()), before.cache.refusals())

    said = after.say("job 10009 ended", "bad 10000", "bad 10003", "run 10001", "run 10002")

    assert [verdict.cached is not None for verdict in said] == [True, False, False, False, True]


def test_a_cache_that_was_kept_is_decided_and_audited_by_the_policy_in_force() -> None:
    before = Answering(ask_first=1)
    before.say(*jobs(2))
    after = Answering(ask_first=1, audit_rate=1.0)
    after.policy = replace(after.policy, accept_at=0.95)
    after.cache.follow(after.classifier.release, after.policy)
    after.cache.restore(list(before.cache.listing()), [])

    (said,) = after.say("job 10003 ended")

    assert (said.route, after.cache.counts["audits"]) == ("review", 1)


def test_of_a_cache_that_was_kept_as_many_entries_are_taken_as_there_is_room_for_the_latest_of_them() -> None:
    before = Answering(ask_first=1)
    for _ in range(2):
        before.say(*(f"{letter} opened" for letter in "abcdefghij"))
    after = Answering(ask_first=1, max_entries=5)
    after.cache.follow(after.classifier.release, after.policy)
    after.cache.restore(list(before.cache.listing()), [])
    after.say(*(f"{letter} opened" for letter in "klmnop"))  # nothing is known of these

    said = after.say(*(f"{letter} opened" for letter in "jihg"))
    assert [verdict.cached is not None for verdict in said] == [True] * 4
    assert len(after.cache) == 5
