from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflows.operators.classify import Judged
from dataflows.operators.decide import decide_window
from dataflows.operators.decode import decode_records
from models.contracts import wire
from models.contracts.opinion import Opinion
from models.contracts.policy import ContextRule, Policy
from models.contracts.verdict import CENTRAL, Verdict
from tests.fakes.classifier import release
from tests.fakes.records import batch

EVENT = decode_records(batch("<86>Jan 31 23:59:59 web-1 sshd[42]: Failed password for root")).events[0]


def decide(*probabilities: float, mass: float = 1.0, policy: Policy | None = None, **opinion: Any) -> Verdict:
    said = Opinion(probabilities=probabilities, label_mass=mass, **opinion)
    (verdict,) = decide_window(Judged([EVENT], [said], release(3)), policy if policy is not None else Policy(number=7))
    return verdict


def test_a_verdict_says_what_it_is_about_and_who_made_it() -> None:
    assert decide(0.1, 0.05, 0.85, mass=0.9, fields={"target": ("root",)}) == Verdict(
        id=EVENT.id,
        text=EVENT.text,
        label="critical",
        confidence=0.85,
        probabilities={"benign": 0.1, "suspicious": 0.05, "critical": 0.85},
        label_mass=0.9,
        fields={"target": ("root",)},
        route="accepted",
        release="scripted-3",
        policy=7,
        source="hosts",
        received_at_ms=1_700_000_000_000,
        occurred_at_ms=1_675_209_599_000,
        host="web-1",
        app="sshd",
        severity=6,
    )


def test_an_event_that_no_model_said_anything_of_has_the_default_label_and_goes_to_review_with_the_reason() -> None:
    said = decide(0.2, 0.1, 0.7, unanswered="engine-timeout", policy=Policy(accept_at=0.0))

    assert (said.label, said.confidence, said.route) == ("suspicious", 0.1, "review")
    assert said.reason == "engine-timeout"


def test_a_verdict_on_a_question_has_the_gateways_name_and_supersedes() -> None:
    said = Opinion(probabilities=(1.0, 0.0, 0.0), label_mass=1.0)
    asked = msgspec.structs.replace(EVENT, gateway="gw-1", revision=CENTRAL)
    (first,) = decide_window(Judged([asked], [said], release(3)), Policy())
    (corrected,) = decide_window(Judged([asked], [said], release(3), revision=1), Policy())

    assert (first.gateway, first.revision, corrected.revision) == ("gw-1", CENTRAL, CENTRAL + 1)


def test_a_verdict_keeps_the_topic_that_its_event_came_by() -> None:
    said = Opinion(probabilities=(1.0, 0.0, 0.0), label_mass=1.0)
    events = [EVENT, msgspec.structs.replace(EVENT, topic="devices/7/log")]

    verdicts = decide_window(Judged(events, [said, said], release(3)), Policy())

    assert [verdict.topic for verdict in verdicts] == [None, "devices/7/log"]


@pytest.mark.parametrize("probabilities", [(), (0.9, 0.1), (0.7, 0.1, 0.1, 0.1)])
def test_an_opinion_on_other_labels_than_the_tasks_stops_the_flow(probabilities: tuple[float, ...]) -> None:
    with pytest.raises(RuntimeError, match=f"scripted-3: {len(probabilities)} probabilities for 3 labels"):
        decide(*probabilities)


@pytest.mark.parametrize(("confidence", "route"), [(0.8, "accepted"), (0.7999, "review")])
def test_a_verdict_at_the_threshold_is_accepted_and_one_below_it_is_not(confidence: float, route: str) -> None:
    assert decide(confidence, 1 - confidence, 0.0, policy=Policy(accept_at=0.8)).route == route


def test_a_labels_own_threshold_overrides_the_common_one() -> None:
    policy = Policy(accept_at=0.5, accept_at_by_label={"critical": 0.9})

    assert decide(0.6, 0.2, 0.2, policy=policy).route == "accepted"
    assert decide(0.2, 0.2, 0.6, policy=policy).route == "review"


def test_a_label_with_threshold_one_is_never_accepted_however_sure_the_model_is() -> None:
    assert decide(1.0, 0.0, 0.0, policy=Policy(accept_at=1.0)).route == "review"
    assert decide(1.0, 0.0, 0.0, policy=Policy(accept_at_by_label={"benign": 1.0})).route == "review"
    assert decide(0.0, 0.0, 1.0, policy=Policy(accept_at_by_label={"benign": 1.0})).route == "accepted"


@pytest.mark.parametrize(("mass", "route"), [(0.5, "accepted"), (0.49, "review")])
def test_a_confident_verdict_on_a_text_unlike_anything_known_is_not_accepted(mass: float, route: str) -> None:
    assert decide(0.99, 0.01, 0.0, mass=mass, policy=Policy(mass_floor=0.5)).route == route


@pytest.mark.parametrize("doubtful", ["escalated", "review"])
def test_a_doubtful_verdict_keeps_its_label_on_its_way_to_whoever_decides(doubtful: Any) -> None:
    verdict = decide(0.5, 0.3, 0.2, policy=Policy(doubtful=doubtful))

    assert (verdict.label, verdict.confidence, verdict.route) == ("benign", 0.5, doubtful)


def test_an_unsure_verdict_has_the_default_label_with_that_labels_own_probability() -> None:
    verdict = decide(0.5, 0.3, 0.2, policy=Policy(doubtful="unsure"))

    assert (verdict.label, verdict.confidence, verdict.route) == ("suspicious", 0.3, "unsure")


def test_of_equally_probable_labels_the_first_wins() -> None:
    assert decide(0.2, 0.4, 0.4).label == "suspicious"


def test_a_text_that_only_the_model_had_to_cut_is_marked_as_truncated_too() -> None:
    assert decide(0.9, 0.1, 0.0, truncated=True).truncated


HIGH, LAB = {"criticality": "high"}, {"zone": "lab"}
RULED = Policy(
    accept_at=0.8,
    accept_at_by_label={"benign": 0.6},
    when=(
        ContextRule(context=HIGH, accept_at=0.95, doubtful="escalated"),
        ContextRule(context=HIGH | LAB, accept_at=0.0),
        ContextRule(context=LAB, accept_at_by_label={"critical": 0.5}),
    ),
)


@pytest.mark.parametrize(
    ("context", "benign", "critical"),
    [
        ({}, (0.6, "review"), (0.8, "review")),
        ({"criticality": "low"}, (0.6, "review"), (0.8, "review")),
        (HIGH, (0.95, "escalated"), (0.95, "escalated")),
        (HIGH | LAB | {"owner": "shop"}, (0.95, "escalated"), (0.95, "escalated")),
        (LAB, (0.6, "review"), (0.5, "review")),
    ],
)
def test_the_first_rule_that_fits_what_is_known_of_an_event_overrides_threshold_and_route(
    context: dict[str, str], benign: tuple[float, str], critical: tuple[float, str]
) -> None:
    event = msgspec.structs.replace(EVENT, context=context)
    for at, (threshold, doubtful) in ((0, benign), (2, critical)):
        for confidence, route in ((threshold, "accepted"), (threshold - 0.01, doubtful)):
            probabilities = [0.0, 0.0, 0.0]
            probabilities[at] = confidence
            judged = Judged([event], [Opinion(probabilities=tuple(probabilities), label_mass=1.0)], release(1))
            (verdict,) = decide_window(judged, RULED)

            assert (verdict.route, verdict.context) == (route, context)


def test_a_rule_is_for_its_own_events_alone() -> None:
    said = Opinion(probabilities=(0.0, 0.1, 0.9), label_mass=1.0)
    events = [msgspec.structs.replace(EVENT, context=context) for context in ({}, HIGH, {}, HIGH)]

    verdicts = decide_window(Judged(events, [said] * 4, release(1)), RULED)

    assert [verdict.route for verdict in verdicts] == ["accepted", "escalated", "accepted", "escalated"]


@given(
    st.tuples(*[st.floats(0, 1)] * 3),
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(0, 1),
    st.sampled_from(["escalated", "review", "unsure"]),
)
def test_any_opinion_under_any_policy_is_a_verdict_that_can_be_sent_and_read(
    probabilities: tuple[float, ...], mass: float, threshold: float, floor: float, doubtful: Any
) -> None:
    policy = Policy(accept_at=threshold, mass_floor=floor, doubtful=doubtful)

    verdict = decide(*probabilities, mass=mass, policy=policy)

    assert wire.decode_verdict(wire.encode(verdict)) == verdict
    assert verdict.confidence == verdict.probabilities[verdict.label]
    assert (verdict.route == "accepted") == (max(probabilities) >= threshold < 1 and mass >= floor)


def test_what_is_to_be_escalated_while_the_centre_is_away_has_the_default_label_and_is_unsure() -> None:
    said = Opinion(probabilities=(0.5, 0.3, 0.2), label_mass=1.0)
    sure = Opinion(probabilities=(0.9, 0.1, 0.0), label_mass=1.0)
    window = Judged([EVENT, EVENT], [said, sure], release(3))

    verdicts = decide_window(window, Policy(doubtful="escalated"), centre_is_away=True)

    assert [(each.label, each.confidence, each.route) for each in verdicts] == [
        ("suspicious", 0.3, "unsure"),
        ("benign", 0.9, "accepted"),
    ]


def test_what_is_to_be_reviewed_does_not_ask_for_the_centre() -> None:
    said = Opinion(probabilities=(0.5, 0.3, 0.2), label_mass=1.0)

    (verdict,) = decide_window(Judged([EVENT], [said], release(3)), Policy(doubtful="review"), centre_is_away=True)

    assert (verdict.label, verdict.route) == ("benign", "review")
