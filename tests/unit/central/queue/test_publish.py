"""Answers are told to Kafka once they are kept, again where it was away, and never in vain for ever."""

from collections.abc import Iterator
from pathlib import Path
from time import sleep

import pytest

from central.queue.publish import AnswersRelay, Told, publish_answers
from central.queue.store import Store
from dataflows.backoff import Backoff
from models.contracts import wire
from models.contracts.errors import UnavailableError
from models.contracts.verdict import PERSON
from tests.checks.queue_store import NOW, found, put, waiting
from tests.fakes.carrier import FarEnd
from tests.fakes.incidents import incident

QUICK = Backoff(first_s=0.01, most_s=0.05)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'queue.sqlite3'}"


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    opened = Store(url)
    yield opened
    opened.close()


def clock_ms() -> int:
    return NOW


def answered(store: Store, *item_ids: str) -> None:
    put(store, *(waiting(id=item_id) for item_id in item_ids))
    for at_ms, item_id in enumerate(item_ids):
        store.answer(item_id, "alice", "benign", NOW + at_ms)


def test_an_answer_goes_to_the_answers_and_as_a_persons_verdict_to_the_verdicts(store: Store) -> None:
    answers, verdicts = FarEnd(), FarEnd()
    answered(store, "o.1", "o.2")

    assert publish_answers(store, answers, verdicts, clock_ms) == Told(published=2, refused=0)
    assert [wire.decode_answer(payload).id for payload in answers.received] == ["o.1", "o.2"]
    said = [wire.decode_verdict(payload) for payload in verdicts.received]
    assert [(each.id, each.label, each.route, each.revision) for each in said] == [
        ("o.1", "benign", "accepted", PERSON),
        ("o.2", "benign", "accepted", PERSON),
    ]
    assert publish_answers(store, answers, verdicts, clock_ms) == Told(published=0, refused=0)
    assert len(answers.received) == len(verdicts.received) == 2


def test_an_answer_on_an_incident_is_no_verdict_on_an_event(store: Store) -> None:
    answers, verdicts = FarEnd(), FarEnd()
    store.put(found(incident()), NOW)
    store.answer(incident().id, "alice", "critical", NOW)

    assert publish_answers(store, answers, verdicts, clock_ms) == Told(published=1, refused=0)
    assert [wire.decode_answer(payload).kind for payload in answers.received] == ["incident"]
    assert verdicts.received == []


@pytest.mark.parametrize("away", ["answers", "verdicts"])
def test_what_either_topic_did_not_take_is_owed_still(store: Store, away: str) -> None:
    ends = {"answers": FarEnd(), "verdicts": FarEnd()}
    answered(store, "o.1")
    ends[away].down()

    with pytest.raises(UnavailableError, match="cut off"):
        publish_answers(store, ends["answers"], ends["verdicts"], clock_ms)
    assert store.counts(NOW).unpublished == 1
    ends[away].up()
    assert publish_answers(store, ends["answers"], ends["verdicts"], clock_ms) == Told(published=1, refused=0)


def test_an_answer_that_kafka_will_never_take_keeps_its_reason_and_holds_nothing_up(store: Store) -> None:
    answers, verdicts = FarEnd(), FarEnd()
    verdicts.refuse = lambda payload: "too large" if b'"o.2"' in payload else ""
    answered(store, "o.1", "o.2", "o.3")

    assert publish_answers(store, answers, verdicts, clock_ms) == Told(published=2, refused=1)
    assert (store.counts(NOW).unpublished, store.counts(NOW).unpublishable) == (0, 1)
    assert store.show("o.2", NOW).unpublishable == "too large"


def test_a_relay_publishes_what_is_owed_when_the_far_end_is_back(store: Store, url: str) -> None:
    answers, verdicts = FarEnd(), FarEnd()
    verdicts.down()
    answered(store, "o.1")
    relay = AnswersRelay(url, answers.carrier, verdicts.carrier, every_s=0.01, backoff=QUICK)
    relay.start()
    try:
        verdicts.until(lambda: verdicts.attempts > 2)
        verdicts.up()
        answers.until(lambda: len(answers.received) == 1)
        while store.counts(NOW).unpublished:
            sleep(0.01)
    finally:
        relay.close()

    assert len(verdicts.received) == 1
    assert verdicts.closed == answers.closed > 2
