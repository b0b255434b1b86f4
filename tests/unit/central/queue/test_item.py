"""What of a delivery asks for a person, and what is told of an answer."""

import pytest
from msgspec.structs import asdict, replace

from central.queue import view
from central.queue.item import Asking, Item, Settling, answer_of, answered_verdict, read
from models.contracts import wire
from models.contracts.answer import Answer
from models.contracts.errors import InputError
from models.contracts.verdict import CENTRAL, PERSON
from tests.fakes.incidents import incident
from tests.fakes.verdicts import verdict

PAYLOAD = wire.encode(verdict(route="review", confidence=0.5, gateway="gw-1", revision=3))


def item(payload: bytes) -> Item:
    """A row as the database has it once it was answered."""
    asking = read(payload)
    assert isinstance(asking, Asking)
    return Item(
        **asdict(asking),
        settled=-1,
        state="answered",
        waiting_since_ms=1,
        claimed_by=None,
        claimed_until_ms=None,
        answer="benign",
        answered_by="alice",
        answered_at_ms=7,
        note="ours",
        answer_revision=PERSON,
        published_at_ms=None,
        unpublishable=None,
    )


def test_a_verdict_for_review_asks_for_a_person() -> None:
    assert read(PAYLOAD) == Asking("o.1", "event", 3, PAYLOAD, "critical", 0.5, "hosts", "gw-1", 2)


@pytest.mark.parametrize("route", ["accepted", "escalated", "unsure"])
def test_any_other_verdict_settles_what_is_below_it(route: str) -> None:
    assert read(wire.encode(verdict(route=route, revision=CENTRAL))) == Settling("o.1", "event", CENTRAL)
    assert read(wire.encode(verdict(route=route, revision=0))) is None


def test_an_incident_asks_for_a_person_with_its_gravest_event_until_it_is_withdrawn() -> None:
    found = incident()
    payload = wire.encode(found)

    assert read(payload) == Asking(found.id, "incident", 2, payload, "critical", 0.95, "hosts", "gw-1", 2)
    assert read(wire.encode(replace(found, state="closed", revision=4))) is not None
    assert read(wire.encode(replace(found, state="withdrawn", revision=5))) == Settling(found.id, "incident", 5)


@pytest.mark.parametrize("state", ["open", "closed"])
def test_an_incident_of_whose_verdicts_none_is_there_asks_with_what_is_known_of_it(state: str) -> None:
    payload = wire.encode(incident(state=state, count=2, verdicts=(), more=("o.4", "o.5"), labels={"suspicious": 2}))

    asking = read(payload)

    assert asking == Asking("logins/203.0.113.9/o.1", "incident", 2, payload, "suspicious", 0.0, "logins", "gw-1", 0)
    answered = replace(item(payload), answer="suspicious")
    assert [each.text for each in answered.incident.verdicts] == ["of 2 events no text is here: o.4, o.5"]
    assert view.whole(answered, 0).plain.count("suspicious") > 1
    assert "o.4" in "".join(view.fields([answered], 0))
    answer = answer_of(answered)
    assert wire.decode_answer(wire.encode(answer)) == answer
    assert (answer.text, answer.model_label) == ("", "suspicious")


def test_an_incident_without_verdicts_is_as_grave_as_its_commonest_label_among_those_it_has() -> None:
    asking = read(wire.encode(incident(verdicts=(), labels={"critical": 1, "suspicious": 7})))

    assert isinstance(asking, Asking)
    assert (asking.label, asking.gravity) == ("suspicious", 1)


def test_a_label_that_no_probability_names_counts_as_the_gravest() -> None:
    asking = read(wire.encode(verdict(route="review", label="strange")))

    assert isinstance(asking, Asking)
    assert asking.gravity == 3
    assert item(asking.record).labels == ("benign", "suspicious", "critical", "strange")


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"{", "truncated"),
        (b'{"type": "policy/1"}', "Invalid value 'policy/1'"),
        (wire.encode(verdict(id="i" * 1025)), "found an id of 1025 bytes, wanted at most 1024"),
        (wire.encode(verdict(revision=(1 << 63) - 1)), "found revision 9223372036854775807, wanted at most"),
        (wire.encode(incident(verdicts=(), labels={})), "incident logins/.*: found no verdicts and no labels"),
    ],
)
def test_what_is_neither_or_cannot_be_kept_is_bad_input(payload: bytes, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        read(payload)


def test_an_answer_says_what_the_model_had_said() -> None:
    assert answer_of(item(PAYLOAD)) == Answer(
        id="o.1",
        text="Failed password for root",
        label="benign",
        by="alice",
        at_ms=7,
        note="ours",
        revision=PERSON,
        model_label="critical",
        confidence=0.5,
        route="review",
        release="soc-triage-1",
        policy=1,
        source="hosts",
        gateway="gw-1",
    )


def test_a_persons_verdict_is_accepted_and_the_rest_of_it_is_the_overruled_ones() -> None:
    assert answered_verdict(item(PAYLOAD)) == replace(
        wire.decode_verdict(PAYLOAD),
        label="benign",
        confidence=1.0,
        probabilities={"benign": 1.0, "suspicious": 0.0, "critical": 0.0},
        route="accepted",
        revision=PERSON,
    )


def test_an_answer_on_an_incident_has_the_text_of_its_events() -> None:
    answer = answer_of(item(wire.encode(incident())))

    assert (answer.kind, answer.id, answer.model_label) == ("incident", "logins/203.0.113.9/o.1", "critical")
    assert answer.text.splitlines() == [
        "Failed password for root",
        "Accepted password for root",
        "Failed password for admin",
    ]
