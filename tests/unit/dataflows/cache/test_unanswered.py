"""An engine that said nothing is no witness: the verdict cache neither learns from it nor refuses a template for it."""

from dataflows.cache.entry import Entry
from models.contracts.opinion import Opinion
from tests.fakes.answering import Answering, jobs
from tests.fakes.classifier import BENIGN, CRITICAL

NOBODY = Opinion(probabilities=(1 / 3, 1 / 3, 1 / 3), label_mass=0.0, unanswered="engine-down")


class Engine:
    """One that answers as it is told to, or not at all."""

    def __init__(self) -> None:
        self.opinion = BENIGN

    def __call__(self, text: str) -> Opinion:
        return self.opinion


def test_what_nobody_said_is_not_learnt() -> None:
    engine = Engine()
    answering = Answering(engine, ask_first=3)
    engine.opinion = NOBODY
    said = answering.say(*jobs(10))

    assert answering.asked == jobs(10)
    assert answering.entry(jobs(1)[0]) is None
    assert {(verdict.cached, verdict.route, verdict.reason) for verdict in said} == {(None, "review", "engine-down")}


def test_a_template_goes_on_learning_where_it_was_when_the_engine_is_back() -> None:
    engine = Engine()
    answering = Answering(engine, ask_first=3)
    answering.say(*jobs(2))
    engine.opinion = NOBODY
    answering.say(*jobs(5, first=20_000))
    engine.opinion = BENIGN
    said = answering.say(*jobs(3, first=30_000))

    assert [verdict.cached is not None for verdict in said] == [False, True, True]


def test_an_audit_that_nobody_answers_is_no_audit() -> None:
    engine = Engine()
    answering = Answering(engine, ask_first=1, audit_rate=1.0)
    answering.say("job 10000 ended")
    engine.opinion = NOBODY
    (said,) = answering.say("job 10001 ended")

    assert said.reason == "engine-down"
    assert isinstance(answering.entry("job 10002 ended"), Entry)
    assert (answering.cache.counts["audits"], answering.cache.counts["refused"]) == (0, 0)


def test_an_event_in_doubt_stays_in_doubt_until_somebody_answers() -> None:
    engine = Engine()
    answering = Answering(lambda text: CRITICAL if "10002" in text else engine.opinion, ask_first=1)
    answering.say("job 10000 ended", "job 10001 ended")
    answering.rule(audit_rate=1.0)
    engine.opinion = NOBODY
    answering.say("job 10002 ended")  # the audit disagrees, and nobody is there to say what 10001 should have been

    assert [recent.event.body for recent in answering.cache.doubted] == ["job 10001 ended"]

    engine.opinion = CRITICAL
    _, taken_back = answering.window("door opened")
    assert (taken_back.text, taken_back.label, taken_back.revision) == ("job 10001 ended", "critical", 1)
    assert answering.cache.doubted == []
