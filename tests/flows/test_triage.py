"""The whole topology on sources and sinks in memory."""

from collections.abc import Sequence
from typing import Any

import pytest
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSource, run_main

from dataflows.cache.verdict_cache import VerdictCache
from dataflows.observer import Unobserved
from dataflows.operators.decode import Reading
from dataflows.operators.repeats import Repeats
from dataflows.triage import Outlet, triage
from models.classifier import Classifier, Current
from models.contracts.errors import UnavailableError
from models.contracts.event import DeadLetter
from models.contracts.policy import ROUTES, Policy, Route
from models.contracts.verdict import Verdict
from tests.fakes.classifier import ScriptedClassifier
from tests.fakes.records import FakeBatch, batch
from tests.fakes.sink import MemorySink


class Ways:
    """The sinks of a flow under test."""

    def __init__(self) -> None:
        self.all = MemorySink()
        self.letters = MemorySink()

    @property
    def verdicts(self) -> list[Verdict]:
        return self.all.records

    @property
    def dead(self) -> list[DeadLetter]:
        return self.letters.records


def flow(
    batches: Sequence[FakeBatch],
    ways: Ways,
    *,
    classifier: Classifier | Current[Classifier] | None = None,
    policy: Policy | None = None,
    outlets: Sequence[Outlet] = (),
    **options: Any,
) -> Dataflow:
    if classifier is None:
        classifier = ScriptedClassifier()
    settings = {
        "readings": {},
        "repeats": Repeats(),
        "cache": VerdictCache(b"secret"),
        "window_events": 64,
        "wait": lambda _seconds: False,
        "observer": Unobserved(),
    } | options
    return triage(
        TestingSource(batches, batch_size=settings.pop("batch_size", 1)),
        classifier if isinstance(classifier, Current) else Current(classifier),
        Current(policy if policy is not None else Policy(accept_at=0.8)),
        [Outlet("all", ways.all), *outlets],
        ways.letters,
        **settings,
    )


def test_every_record_is_one_verdict_in_the_order_of_arrival() -> None:
    ways = Ways()
    batches = [batch("a", "b", start=0), batch("attack c", start=2), batch("d", start=3)]

    run_main(flow(batches, ways))

    assert [(verdict.id, verdict.text, verdict.label) for verdict in ways.verdicts] == [
        ("o.0", "a", "benign"),
        ("o.1", "b", "benign"),
        ("o.2", "attack c", "critical"),
        ("o.3", "d", "benign"),
    ]
    assert ways.dead == []


def test_batches_that_come_together_are_asked_about_together() -> None:
    classifier = ScriptedClassifier()

    run_main(flow([batch("a"), batch("b", start=1), batch("c", start=2)], Ways(), classifier=classifier, batch_size=3))

    assert classifier.asked == [["a", "b", "c"]]


def test_the_classifier_is_never_asked_about_more_than_a_window() -> None:
    classifier, ways = ScriptedClassifier(), Ways()

    run_main(flow([batch(*(f"e{n}" for n in range(10)))], ways, classifier=classifier, window_events=4))

    assert [len(texts) for texts in classifier.asked] == [4, 4, 2]
    assert [verdict.text for verdict in ways.verdicts] == [f"e{n}" for n in range(10)]


@pytest.mark.parametrize("position", range(7))
def test_a_poison_line_is_a_dead_letter_and_its_neighbours_have_verdicts_wherever_it_stands(position: int) -> None:
    ways = Ways()
    lines = [f"line {n}" for n in range(7)]
    lines[position] = "poison"

    run_main(flow([batch(*lines)], ways))

    assert [verdict.text for verdict in ways.verdicts] == [line for line in lines if line != "poison"]
    assert [(letter.id, letter.reason, letter.raw) for letter in ways.dead] == [
        (f"o.{position}", "refused-by-classifier", b"poison")
    ]


def test_a_batch_of_nothing_but_poison_yields_dead_letters_and_the_flow_goes_on() -> None:
    ways = Ways()

    run_main(flow([batch("poison", "poison"), batch("fine", start=2)], ways))

    assert [letter.id for letter in ways.dead] == ["o.0", "o.1"]
    assert [verdict.id for verdict in ways.verdicts] == ["o.2"]


def test_records_that_cannot_be_read_share_the_dead_letters_with_what_the_classifier_refused() -> None:
    ways = Ways()

    run_main(
        flow(
            [batch('{"msg": "poison"}', "no json", '{"msg": "fine"}')],
            ways,
            readings={"hosts": Reading(text_path="msg")},
        )
    )

    assert sorted((letter.id, letter.reason) for letter in ways.dead) == [
        ("o.0", "refused-by-classifier"),
        ("o.1", "not-json"),
    ]
    assert [verdict.text for verdict in ways.verdicts] == ["fine"]


def test_an_event_that_comes_again_has_one_verdict() -> None:
    ways = Ways()

    run_main(flow([batch("a", "b"), batch("b", "c", start=1), batch("a")], ways))

    assert [verdict.id for verdict in ways.verdicts] == ["o.0", "o.1", "o.2"]


def test_every_verdict_carries_the_release_and_the_policy_that_made_it_when_both_change_between_batches() -> None:
    ways = Ways()
    classifier: Current[Classifier] = Current(ScriptedClassifier(number=1))
    policy = Current(Policy(number=1))

    class Replacing(Unobserved):
        def arrived(self, source: str, records: int, received_at_ms: int) -> None:
            if self.seen == 2:
                classifier.replace(ScriptedClassifier(number=2))
                policy.replace(Policy(number=7))
            self.seen += 1

        seen = 0

    run_main(
        triage(
            TestingSource([batch(f"e{n}", start=n) for n in range(4)]),
            classifier,
            policy,
            [Outlet("all", ways.all)],
            ways.letters,
            readings={},
            repeats=Repeats(),
            cache=VerdictCache(b"secret"),
            window_events=64,
            wait=lambda _seconds: False,
            observer=Replacing(),
        )
    )

    assert [(verdict.release, verdict.policy) for verdict in ways.verdicts] == [
        ("scripted-1", 1),
        ("scripted-1", 1),
        ("scripted-2", 7),
        ("scripted-2", 7),
    ]


def test_a_classifier_that_is_closed_under_a_waiting_batch_hands_it_to_its_successor() -> None:
    ways = Ways()
    retired = ScriptedClassifier(number=1)
    retired.close()
    classifier: Current[Classifier] = Current(retired)

    def wait(_seconds: float) -> bool:
        classifier.replace(ScriptedClassifier(number=2))
        return False

    run_main(flow([batch("a")], ways, classifier=classifier, wait=wait))

    assert [verdict.release for verdict in ways.verdicts] == ["scripted-2"]


def test_a_classifier_that_is_away_for_a_while_costs_no_event() -> None:
    ways = Ways()

    run_main(flow([batch("a", "b")], ways, classifier=ScriptedClassifier(outages=3)))

    assert [verdict.id for verdict in ways.verdicts] == ["o.0", "o.1"]


def test_a_classifier_that_stays_away_stops_the_flow() -> None:
    with pytest.raises(Exception, match=r"raised exception|error") as caught:
        run_main(flow([batch("a")], Ways(), classifier=ScriptedClassifier(outages=1000)))

    assert isinstance(_root(caught.value), UnavailableError)


def test_waiting_for_a_classifier_ends_when_the_flow_is_told_to_stop() -> None:
    waits = []

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        return True

    with pytest.raises(Exception, match=r"raised exception|error"):
        run_main(flow([batch("a")], Ways(), classifier=ScriptedClassifier(outages=1000), wait=wait))

    assert len(waits) == 1


@pytest.mark.parametrize("doubtful", ["escalated", "review", "unsure"])
def test_each_route_reaches_the_outlets_that_asked_for_it_and_no_other(doubtful: Any) -> None:
    ways = Ways()
    sinks: dict[Route, MemorySink] = {route: MemorySink() for route in ROUTES}
    both = MemorySink()
    outlets = [Outlet(route, sink, (route,)) for route, sink in sinks.items()]

    run_main(
        flow(
            [batch("attack", "maybe", "fine")],
            ways,
            policy=Policy(accept_at=0.8, doubtful=doubtful),
            outlets=[*outlets, Outlet("both", both, ("accepted", doubtful))],
        )
    )

    reached = {route: [verdict.text for verdict in sink.records] for route, sink in sinks.items()}
    assert reached == {route: [] for route in ROUTES} | {"accepted": ["attack", "fine"], doubtful: ["maybe"]}
    assert [verdict.text for verdict in both.records] == ["attack", "maybe", "fine"]
    assert [verdict.text for verdict in ways.verdicts] == ["attack", "maybe", "fine"]


def test_an_observer_sees_every_record_once() -> None:
    class Tally(Unobserved):
        def __init__(self) -> None:
            self.arrivals = self.repeats = self.answers = self.verdicts = self.letters = 0

        def arrived(self, source: str, records: int, received_at_ms: int) -> None:
            self.arrivals += records

        def repeated(self, source: str, events: int) -> None:
            self.repeats += events

        def classified(self, events: int, seconds: float) -> None:
            self.answers += events

        def decided(self, verdicts: Sequence[Verdict]) -> None:
            self.verdicts += len(verdicts)

        def buried(self, letters: Sequence[DeadLetter]) -> None:
            self.letters += len(letters)

    tally = Tally()

    run_main(flow([batch("a", "poison", "", "b"), batch("b", start=3)], Ways(), observer=tally))

    assert (tally.arrivals, tally.repeats, tally.answers, tally.verdicts, tally.letters) == (5, 1, 3, 2, 2)


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error
