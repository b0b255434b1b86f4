"""Audits: which hits are asked about all the same, and what one that disagrees takes back."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import mean

import pytest
from msgspec.structs import replace

from dataflows.cache.entry import Entry, Refusal
from models.contracts.errors import UnavailableError
from models.contracts.opinion import Opinion
from tests.fakes.answering import GRAVE_TASK, Answering, jobs
from tests.fakes.classifier import BENIGN, CRITICAL

ALWAYS = {"audit_rate": 1.0}


class Changing:
    """A model that changes its mind about everything when it is told to."""

    def __init__(self) -> None:
        self.opinion = BENIGN

    def __call__(self, text: str) -> Opinion:
        return self.opinion


def drawn(secret: bytes, ids: list[str]) -> set[str]:
    """The ids of the hits that are audited."""
    answering = Answering(secret=secret, ask_first=1, audit_rate=0.2)
    answering.window("job 10000 ended", ids=["first"])
    said = [answering.window("job 10001 ended", ids=[each])[0] for each in ids]
    return {verdict.id for verdict in said if verdict.cached is None}


def test_the_same_events_are_audited_after_a_restart() -> None:
    ids = [f"o.{n}" for n in range(300)]

    assert drawn(b"secret", ids) == drawn(b"secret", ids)
    assert 30 < len(drawn(b"secret", ids)) < 90


def test_which_events_are_audited_cannot_be_told_without_the_secret() -> None:
    ids = [f"o.{n}" for n in range(300)]
    mine, theirs = drawn(b"secret", ids), drawn(b"Secret", ids)

    assert mine != theirs
    assert len(mine & theirs) < 30  # twelve, where neither says anything about the other


def test_an_id_that_was_not_audited_once_may_be_with_another_text() -> None:
    answering = Answering(ask_first=1, audit_rate=0.2)
    answering.window("job 10000 ended", ids=["mine"])
    said = [answering.window(text, ids=["mine"])[0] for text in jobs(200, first=20_000)]

    assert 0.1 < mean(verdict.cached is None for verdict in said) < 0.3


@pytest.mark.parametrize(
    ("answer", "hits", "rate"),
    [(BENIGN, 0, 0.4), (BENIGN, 50, 0.1), (CRITICAL, 50, 0.2)],
    ids=["young", "old", "grave"],
)
def test_young_and_grave_templates_are_audited_more_often(answer: Opinion, hits: int, rate: float) -> None:
    answering = Answering(
        lambda _: answer,
        task=GRAVE_TASK,
        ask_first=1,
        ask_first_grave=1,
        audit_rate=0.1,
        audit_rate_grave=0.2,
        audit_rate_young=0.4,
        young_hits=100_000 if hits == 0 else hits,
    )
    while answering.cache.counts["hits"] < hits:
        answering.say(*jobs(10))
    before = answering.cache.counts["audits"]
    answering.say(*jobs(1000, first=20_000))

    assert (answering.cache.counts["audits"] - before) / 1000 == pytest.approx(rate, rel=0.25)


def test_a_template_is_young_until_it_was_hit_so_often() -> None:
    answering = Answering(ask_first=1, audit_rate=0.0, audit_rate_young=1e-6, young_hits=10)
    answering.say(*jobs(10))
    ((_, entry),) = answering.cache.listing()
    assert (entry.hits, entry.audit_below) == (9, 4294)
    answering.say("job 20000 ended")
    assert (entry.hits, entry.audit_below) == (10, 0)


def test_another_audit_rate_is_in_force_at_once() -> None:
    answering = Answering(ask_first=1)
    answering.say(*jobs(20))
    assert answering.cache.counts["audits"] == 0
    answering.rule(audit_rate=1.0)
    answering.say(*jobs(20))

    assert answering.cache.counts["audits"] == 20


def test_the_first_hits_of_a_template_are_audited_in_the_very_window_in_which_it_was_learnt() -> None:
    answering = Answering(ask_first=1, **ALWAYS)
    answering.window(*jobs(5))

    assert [len(texts) for texts in answering.classifier.asked] == [1, 4]
    assert answering.cache.counts["audits"] == 4


def test_an_audit_that_agrees_is_proof_and_its_event_has_the_models_own_answer() -> None:
    answering = Answering(lambda text: replace(BENIGN, label_mass=0.5 if "7" in text else 0.9), ask_first=1, **ALWAYS)
    answering.now += 5
    said = answering.say("job 10000 ended", "job 10007 ended")
    ((_, entry),) = answering.cache.listing()

    assert (said[1].cached, said[1].label_mass) == (None, 0.5)
    assert (entry.audits, entry.audited_at, entry.hits) == (1, answering.now, 0)
    assert entry.bound == pytest.approx(0.95)
    assert answering.cache.counts["disagreements"] == 0


@contextmanager
def outage(answering: Answering, is_away: Callable[[list[str]], bool]) -> Iterator[None]:
    """The model is away whenever it is asked about such texts, and that reaches the flow."""
    classify = answering.classifier.classify

    def asked(texts: list[str]) -> list[Opinion]:
        if is_away(texts):
            raise UnavailableError("away")
        return classify(texts)

    answering.classifier.classify = asked  # type: ignore[method-assign]
    with pytest.raises(UnavailableError):
        yield
    answering.classifier.classify = classify  # type: ignore[method-assign]


def until_audited(answering: Answering, window: Callable[[int], list[str]]) -> list:
    """Send windows until an audit has disagreed; return the verdicts on the last of them."""
    for number in range(1000):
        said = answering.window(*window(number))
        if answering.cache.counts["disagreements"]:
            return said
    raise AssertionError("no audit disagreed")


def test_an_audit_that_disagrees_ends_the_template_for_good_and_takes_back_what_it_said_in_the_window() -> None:
    model = Changing()
    answering = Answering(model, ask_first=1, audit_rate=0.1)
    answering.say("job 10000 ended")
    model.opinion = CRITICAL
    said = until_audited(answering, lambda number: jobs(20, first=20_000 + 100 * number))

    here = [verdict for verdict in said if verdict.revision == 0]
    assert [(verdict.label, verdict.cached) for verdict in here] == [("critical", None)] * 20
    assert [verdict.text for verdict in here] == sorted(verdict.text for verdict in here)
    _, refusal = answering.cache.explain("job 10000 ended")
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "an audit disagreed: the answers differ"
    assert {verdict.cached for verdict in answering.say(*jobs(10))} == {None}


def test_an_audit_that_disagrees_corrects_earlier_verdicts_by_a_higher_revision() -> None:
    model = Changing()
    answering = Answering(model, ask_first=1, audit_rate=0.01, recent_events=1000)
    answering.say("job 10000 ended", "door opened", "door opened")
    model.opinion = CRITICAL
    wrong = []
    said = until_audited(answering, lambda number: wrong.append(f"job {20_000 + number} ended") or wrong[-1:])

    assert [(verdict.text, verdict.revision) for verdict in said[1:]] == [(text, 1) for text in wrong[:-1]]
    assert {verdict.label for verdict in said[1:]} == {"critical"}
    assert {verdict.id for verdict in said[1:]}.isdisjoint({said[0].id})
    assert answering.cache.counts["corrected"] == len(wrong) - 1


def test_verdicts_that_were_right_are_not_superseded() -> None:
    answering = Answering(lambda text: CRITICAL if int(text.split()[1]) % 2 else BENIGN, ask_first=1, audit_rate=0.01)
    answering.say("job 10000 ended")
    sent = []
    said = until_audited(answering, lambda number: sent.append(f"job {20_000 + number} ended") or sent[-1:])

    assert [verdict.text for verdict in said[1:]] == [text for text in sent[:-1] if int(text.split()[1]) % 2]


@pytest.mark.parametrize(("rules", "late_s", "left"), [({"recent_events": 5}, 0, 5), ({"recent_s": 60.0}, 61, 0)])
def test_what_was_said_long_ago_stays_as_it_was_said(rules: dict[str, float], late_s: float, left: int) -> None:
    model = Changing()
    answering = Answering(model, ask_first=1, **rules)
    answering.say(*jobs(20))
    answering.now += late_s
    model.opinion = CRITICAL
    answering.rule(audit_rate=1.0)

    said = answering.window("job 20000 ended")

    assert len(said) == 1 + left


def test_an_audit_that_finds_other_fields_takes_back_as_well() -> None:
    def answer(text: str) -> Opinion:
        source, target = text.split()[1], text.split()[3]
        turned = model.opinion is CRITICAL
        return replace(CRITICAL, fields={"source": (target if turned else source,)})

    model = Changing()
    answering = Answering(answer, task=GRAVE_TASK, ask_first_grave=2)
    texts = [f"from 10.0.0.{n} to 10.1.1.{n} here" for n in range(1, 6)]
    answering.say(*texts)
    model.opinion = CRITICAL
    answering.rule(audit_rate=1.0)

    said = answering.window("from 10.0.0.9 to 10.1.1.9 here")

    assert [(verdict.fields, verdict.revision) for verdict in said] == [
        ({"source": ("10.1.1.9",)}, 0),
        *(({"source": (f"10.1.1.{n}",)}, 1) for n in (3, 4, 5)),
    ]
    ((_, refusal),) = answering.cache.refusals()
    assert refusal.reason == "an audit disagreed: the fields differ"


def test_a_choice_that_an_audit_finds_otherwise_is_a_disagreement() -> None:
    model = Changing()
    answering = Answering(
        lambda _: replace(CRITICAL, fields={"technique": ("T1110" if model.opinion is BENIGN else "T1190",)}),
        task=GRAVE_TASK,
        ask_first_grave=1,
    )
    answering.say("from 10.0.0.1", "from 10.0.0.2")
    model.opinion = CRITICAL
    answering.rule(audit_rate=1.0)
    answering.say("from 10.0.0.3")

    assert answering.cache.counts["disagreements"] == 1


def test_an_event_that_nobody_drew_and_that_disagrees_takes_back_as_well() -> None:
    """It was asked about because its field could have been either of two words."""

    def answer(text: str) -> Opinion:
        return BENIGN if "10.0.0.99" in text else replace(CRITICAL, fields={"source": (text.split()[1],)})

    answering = Answering(answer, task=GRAVE_TASK, ask_first_grave=1)
    answering.say("from 10.0.0.1 to 10.0.0.1", "from 10.0.0.2 to 10.0.0.2")
    said = answering.window("from 10.0.0.3 to 10.0.0.3", "from 10.0.0.3 to 10.0.0.99")

    assert [(verdict.label, verdict.cached) for verdict in said] == [("critical", None), ("benign", None)]
    assert answering.classifier.asked[1:] == [
        ["from 10.0.0.3 to 10.0.0.99"],
        ["from 10.0.0.3 to 10.0.0.3"],
        ["from 10.0.0.2 to 10.0.0.2"],  # of an earlier window, and it was right
    ]
    assert answering.cache.counts["disagreements"] == 0


def test_an_audited_event_that_the_model_refuses_ends_the_template() -> None:
    answering = Answering(ask_first=1)
    answering.say("job 10000 ended", "job 10001 ended")
    answering.classifier._poison = lambda text: "10002" in text
    answering.rule(audit_rate=1.0)

    assert [verdict.revision for verdict in answering.window("job 10002 ended")] == []  # what was right stays
    assert [letter.id for letter in answering.letters] == ["o.2"]
    ((_, refusal),) = answering.cache.refusals()
    assert refusal.reason == "an audit disagreed: the model did not read all of an event"


@pytest.mark.parametrize("still_on", [True, False])
def test_an_outage_while_earlier_verdicts_are_asked_about_again_loses_none_of_them(*, still_on: bool) -> None:
    """Not even where the cache is switched off before the model is back."""
    model = Changing()
    answering = Answering(model, ask_first=1)
    answering.say(*jobs(4))
    model.opinion = CRITICAL
    answering.rule(audit_rate=1.0)
    with outage(answering, lambda texts: "job 20000 ended" not in texts):
        answering.window("job 20000 ended", ids=["late"])
    answering.rule(enabled=still_on)
    said = answering.window("job 20000 ended", ids=["late"])

    assert [(verdict.text, verdict.revision, verdict.label) for verdict in said] == [
        ("job 20000 ended", 0, "critical"),
        *((text, 1, "critical") for text in jobs(4)[1:]),
    ]


def test_a_model_is_asked_about_a_bounded_number_of_earlier_events_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dataflows.cache.verdict_cache._MOST_DOUBTED", 4)
    model = Changing()
    answering = Answering(model, ask_first=1)
    answering.say(*(f"{word} {text}" for word in ("a", "b", "c") for text in jobs(4)))
    model.opinion = CRITICAL
    answering.rule(audit_rate=1.0)
    said = [*answering.window(*(f"{word} job 20000 ended" for word in ("a", "b", "c")))]
    said += [*answering.window("door opened"), *answering.window("door opened"), *answering.window("door opened")]

    assert max(map(len, answering.classifier.asked)) == 4
    superseding = [verdict.text for verdict in said if verdict.revision]
    assert sorted(superseding) == sorted(f"{word} {text}" for word in ("a", "b", "c") for text in jobs(4)[1:])


def test_a_bound_that_the_policy_demands_is_reached_by_audits() -> None:
    answering = Answering(ask_first=1, young_hits=0, bound=0.05, bound_within_hits=400)
    answering.say(*jobs(450))
    ((_, entry),) = answering.cache.listing()

    assert entry.bound <= 0.05
    assert 59 <= entry.audits < 90


def test_more_is_taken_back_than_is_asked_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dataflows.cache.verdict_cache._MOST_DOUBTED", 10)
    model = Changing()
    answering = Answering(model, ask_first=1)
    answering.say(*jobs(36))
    model.opinion = CRITICAL
    answering.rule(audit_rate=1.0)
    said = answering.window("job 20000 ended")
    for _ in range(3):
        said += answering.window("door opened")

    assert sorted(verdict.text for verdict in said if verdict.revision) == jobs(36)[1:]


def test_an_audit_that_an_outage_cut_short_counts_once() -> None:
    answering = Answering(ask_first=1)
    answering.say("job 10000 ended")
    answering.rule(audit_rate=1.0)
    window = ["job 10001 ended", "new 10000 ended", "new 10001 ended"]  # the last waits for the one before it
    with outage(answering, lambda texts: window[2] in texts):
        answering.window(*window, ids=["a", "b", "c"])
    answering.window(*window, ids=["a", "b", "c"])

    entry = answering.entry("job 10000 ended")
    assert isinstance(entry, Entry)
    assert entry.audits == 1
