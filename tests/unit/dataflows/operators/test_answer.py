"""One window of events: some answered from the cache, some by the model, all in order."""

import pytest
from bytewax import operators as op
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, TestingSource, run_main

from dataflows.cache.verdict_cache import VerdictCache
from dataflows.observer import Unobserved
from dataflows.operators.answer import answer
from dataflows.operators.classify import Judged
from models.classifier import Classifier, Current
from models.contracts.errors import UnavailableError
from models.contracts.event import DeadLetter, Event
from models.contracts.policy import CacheRules, Policy
from models.contracts.scalars import EventId
from tests.fakes.answering import UNAUDITED, Answering
from tests.fakes.classifier import BENIGN, CRITICAL, ScriptedClassifier, by_word


def test_hits_and_what_is_asked_about_keep_their_order() -> None:
    answering = Answering(ask_first=1)
    answering.window("a 10000", "b 10000")
    texts = ["a 10001", "attack", "b 10001", "c 10001", "a 10002", "c 10002"]
    said = answering.window(*texts)

    assert [verdict.text for verdict in said] == texts
    assert [verdict.label for verdict in said] == ["benign", "critical", *["benign"] * 4]
    assert [verdict.cached is not None for verdict in said] == [True, False, True, False, True, True]
    assert answering.classifier.asked[1:] == [["attack", "c 10001"]]


def test_what_waited_for_an_answer_that_did_not_help_is_asked_about_and_stands_in_its_place() -> None:
    answering = Answering(lambda text: CRITICAL if "10001" in text else BENIGN, ask_first=2)
    texts = [f"job {number}" for number in range(10_000, 10_005)]
    said = answering.window(*texts)

    assert answering.classifier.asked == [texts[:2], texts[2:]]
    assert [verdict.text for verdict in said] == texts
    assert [verdict.label for verdict in said] == ["benign", "critical", *["benign"] * 3]


def test_a_window_is_asked_about_in_three_goes_at_most() -> None:
    """First the witnesses, then what an audit drew, then what it took back."""
    turned = []
    answering = Answering(
        lambda text: turned.append(text) or (BENIGN if len(turned) <= 2 else CRITICAL), ask_first=2, audit_rate=0.2
    )
    texts = [f"job {number}" for number in range(10_000, 10_060)]
    said = answering.window(*texts)

    first, second, third = answering.classifier.asked
    assert first == texts[:2]
    assert sorted(first + second + third) == texts
    assert 0 < len(second) < 30
    assert [verdict.text for verdict in said] == texts
    assert [verdict.label for verdict in said] == ["benign"] * 2 + ["critical"] * 58


def test_an_event_that_the_model_refuses_is_a_dead_letter_wherever_it_is_asked_about() -> None:
    answering = Answering(ask_first=2)
    answering.classifier._poison = lambda text: "10001" in text or "10003" in text
    said = answering.window(*(f"job {number}" for number in range(10_000, 10_005)))

    assert [verdict.text for verdict in said] == ["job 10000", "job 10002", "job 10004"]
    assert [letter.raw for letter in answering.letters] == [b"job 10001", b"job 10003"]


def test_a_window_of_nothing_but_dead_letters_has_no_verdicts() -> None:
    answering = Answering()

    assert answering.window("poison 1", "poison 2") == []
    assert len(answering.letters) == 2


def test_an_outage_in_the_second_go_does_not_have_the_first_asked_about_again() -> None:
    answering = Answering(lambda text: CRITICAL if "10001" in text else BENIGN, ask_first=2)
    texts = [f"a {number}" for number in range(10_000, 10_004)] + ["door opened", "b 10000"]
    ids = [f"i.{number}" for number in range(6)]
    answering.classifier._outages = 0
    classify = answering.classifier.classify

    def fails_the_second_time(some: list[str]) -> list:
        if len(answering.classifier.asked) == 1:
            answering.classifier._outages = 1
        return classify(some)

    answering.classifier.classify = fails_the_second_time  # type: ignore[method-assign]
    with pytest.raises(UnavailableError):
        answering.window(*texts, ids=ids)
    said = answering.window(*texts, ids=ids)

    assert [verdict.text for verdict in said] == texts
    assert answering.classifier.asked == [
        ["a 10000", "a 10001", "door opened", "b 10000"],
        ["a 10002", "a 10003"],
        ["a 10000", "a 10001", "a 10002", "a 10003"],  # refused meanwhile; the others are known
    ]
    assert answering.cache.counts["hits"] == 2


def test_corrections_come_behind_their_window_as_revision_one() -> None:
    answering = Answering(lambda _: CRITICAL if answering.now > 1_700_000_000 else BENIGN, ask_first=1)
    answering.window("job 10000", "job 10001", "door opened", "door opened")
    answering.now += 1
    answering.rule(audit_rate=1.0)
    said = answering.window("job 10002", "attack")

    assert [(verdict.text, verdict.revision, verdict.label) for verdict in said] == [
        ("job 10002", 0, "critical"),
        ("attack", 0, "critical"),
        ("job 10001", 1, "critical"),
    ]
    assert said[2].cached is None


def test_a_classifier_that_refuses_an_earlier_event_now_leaves_its_verdict_as_it_was() -> None:
    answering = Answering(lambda _: CRITICAL if answering.now > 1_700_000_000 else BENIGN, ask_first=1)
    answering.window("job 10000", "job 10001", "job 10002")
    answering.now += 1
    answering.rule(audit_rate=1.0)
    answering.classifier._poison = lambda text: "10001" in text
    said = answering.window("job 10003")

    assert [(verdict.text, verdict.revision) for verdict in said] == [("job 10003", 0), ("job 10002", 1)]
    assert answering.letters == []


def test_without_the_cache_every_event_is_asked_about_at_once() -> None:
    answering = Answering(enabled=False)
    said = answering.window("a 10000", "poison", "a 10000", "attack")

    assert answering.classifier.asked[0] == ["a 10000", "poison", "a 10000", "attack"]
    assert [verdict.text for verdict in said] == ["a 10000", "a 10000", "attack"]
    assert {verdict.cached for verdict in said} == {None}
    assert len(answering.letters) == 1


def events(*texts: str) -> list[Event]:
    return [
        Event(id=EventId(f"o.{at}"), source="hosts", received_at_ms=0, text=text, body=text)
        for at, text in enumerate(texts)
    ]


class Watching(Unobserved):
    def __init__(self) -> None:
        self.asked: list[int] = []
        self.letters: list[DeadLetter] = []

    def classified(self, events: int, seconds: float) -> None:
        self.asked.append(events)

    def buried(self, letters: list[DeadLetter]) -> None:
        self.letters += letters


def run(
    batches: list[list[Event]], classifier: Classifier, watching: Watching, *, window_events: int = 4
) -> tuple[list[Judged], list[list[DeadLetter]]]:
    judged: list[Judged] = []
    letters: list[list[DeadLetter]] = []
    flow = Dataflow("answer")
    answered = answer(
        "answer",
        op.input("in", flow, TestingSource(batches)),
        classifier=Current(classifier),
        policy=Current(Policy(accept_at=0.8, cache=CacheRules(ask_first=1, **UNAUDITED))),
        cache=VerdictCache(b"secret"),
        window_events=window_events,
        wait=lambda _seconds: False,
        observer=watching,
    )
    op.output("judged", answered.judged, TestingSink(judged))
    op.output("letters", answered.letters, TestingSink(letters))
    run_main(flow)
    return judged, letters


def test_the_operator_answers_a_window_at_a_time_and_tells_who_watches_what_was_asked() -> None:
    watching = Watching()
    judged, letters = run(
        [events("a 10000", "a 10001", "attack", "a 10002", "poison", "b")], ScriptedClassifier(), watching
    )

    assert [[event.body for event in window.events] for window in judged] == [
        ["a 10000", "a 10001", "attack", "a 10002"],
        ["b"],
    ]
    assert [len(window.templates) for window in judged] == [4, 1]
    assert watching.asked == [2, 2]
    assert letters == [watching.letters]
    assert [letter.raw for letter in watching.letters] == [b"poison"]


def test_the_operator_waits_for_a_classifier_that_is_away() -> None:
    watching = Watching()
    judged, _ = run([events("a 10000", "a 10001")], ScriptedClassifier(by_word, outages=2), watching)

    assert [event.body for window in judged for event in window.events] == ["a 10000", "a 10001"]


def test_windows_that_are_all_hits_ask_nobody() -> None:
    watching = Watching()
    classifier = ScriptedClassifier()
    run([events("door opened", *["door opened"] * 20)], classifier, watching)

    assert classifier.asked == [["door opened"]]
    assert watching.asked == [1]
