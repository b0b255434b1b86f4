"""The flows of the centre as they run: a real Kafka, and what becomes of each record."""

from pathlib import Path
from time import monotonic, sleep, time

import pytest

from central.local_kafka import LocalKafka
from models.contracts.event import full_id
from models.contracts.verdict import CENTRAL, Verdict
from tests.fakes.verdicts import verdict
from tests.real.centre import Centre
from tests.real.intake import wait_until

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def centre(tmp_path: Path, kafka: LocalKafka, topic: str) -> Centre:
    return Centre(tmp_path, kafka, topic[-60:].strip("-_."))


def questions(count: int) -> list[Verdict]:
    return [
        verdict(
            id=full_id("gw-1", f"spool.{n}"),
            text=f"sshd: Failed password for user{n}",
            route="escalated",
            gateway="gw-1",
        )
        for n in range(count)
    ]


def test_what_a_gateway_doubts_is_answered_under_its_own_id_and_supersedes(centre: Centre) -> None:
    asked = questions(200)
    triage = centre.flow("triage")
    triage.start()
    try:
        triage.wait_until_ready(240)
        centre.produce(centre.names.questions, asked)
        wait_until(lambda: len(centre.verdicts(centre.names.verdicts)) >= len(asked), "all answers", within_s=120)
        answers = {answer.id: answer for answer in centre.verdicts(centre.names.verdicts)}
        assert answers.keys() == {question.id for question in asked}
        assert {(answer.gateway, answer.revision) for answer in answers.values()} == {("gw-1", CENTRAL)}
        assert {answer.text for answer in answers.values()} == {question.text for question in asked}
        assert triage.stop()[0] == 0
    finally:
        if triage.ended is None:
            triage.kill()


def test_verdicts_are_delivered_to_the_queue_and_what_is_none_is_a_dead_letter(centre: Centre) -> None:
    said = [
        verdict(
            id=full_id("gw-1", f"spool.{n}"),
            route="review" if n % 4 == 0 else "accepted",
            revision=CENTRAL,
            gateway="gw-1",
        )
        for n in range(100)
    ]
    deliver = centre.flow("deliver")
    deliver.start()
    try:
        deliver.wait_until_ready(120)
        centre.produce(centre.names.verdicts, said)
        centre.produce_raw(centre.names.verdicts, [b"no verdict"])
        wait_until(lambda: centre.waiting() == 25, "the queue has what is to be reviewed", within_s=60)
        wait_until(centre.letters, "a dead letter", within_s=60)
        (letter,) = centre.letters()
        assert (letter.reason, letter.raw) == ("not-a-verdict", b"no verdict")
        assert deliver.stop()[0] == 0
    finally:
        if deliver.ended is None:
            deliver.kill()


def test_offsets_of_other_slots_are_refused_and_kept(centre: Centre) -> None:
    deliver = centre.flow("deliver")
    deliver.start()
    try:
        deliver.wait_until_ready(120)
        assert deliver.stop()[0] == 0
    finally:
        if deliver.ended is None:
            deliver.kill()
    centre.config.write_text(centre.config.read_text().replace("slots = 2", "slots = 3"))
    changed = centre.flow("deliver")
    changed.start()
    until_s = monotonic() + 60
    while changed.ended is None and monotonic() < until_s:
        sleep(0.1)

    assert changed.ended == 2
    assert "`kafka.slots`: found 3" in changed.log.read_text()
    assert "remembers offsets of 2; put 2 back" in changed.log.read_text()


RULE = """
[[incidents]]
name = "guesses"
labels = ["suspicious", "critical"]
at_least = 5
lateness_s = 0.0
update_s = 1.0
"""


def test_five_grave_verdicts_on_one_address_are_one_incident_in_the_queue_and_not_five(
    tmp_path: Path, kafka: LocalKafka, topic: str
) -> None:
    centre = Centre(tmp_path, kafka, topic[-60:].strip("-_."), RULE)
    now_ms = int(time() * 1000)
    said = [
        verdict(
            id=full_id(f"gw-{n % 2}", f"spool.{n}"),
            text=f"Failed password for user{n} from 203.0.113.9",
            received_at_ms=now_ms + n,
            fields={"source": ("203.0.113.9",)},
            gateway=f"gw-{n % 2}",
        )
        for n in range(6)
    ]
    deliver = centre.flow("deliver")
    deliver.start()
    try:
        deliver.wait_until_ready(120)
        centre.produce(centre.names.verdicts, said)
        wait_until(lambda: centre.waiting() == 1, "one incident", within_s=60)
        wait_until(lambda: centre.incidents() and centre.incidents()[-1].count == 6, "all six in it", within_s=60)
        found = centre.incidents()
        assert {(incident.key, incident.rule) for incident in found} == {("203.0.113.9", "guesses")}
        assert len({incident.id for incident in found}) == 1
        assert found[-1].gateways == ("gw-0", "gw-1")
        assert deliver.stop()[0] == 0
    finally:
        if deliver.ended is None:
            deliver.kill()


def test_two_processes_share_the_questions_and_when_one_is_killed_nothing_is_lost(centre: Centre) -> None:
    asked = questions(300)
    pair = centre.cluster("triage", 2)
    try:
        for process in pair:
            process.start()
        for process in pair:
            process.wait_until_ready(240)
        centre.produce(centre.names.questions, asked[:150])
        pair[1].kill()
        assert pair[0].wait(60) != 0
        for process in pair:
            process.start()
        centre.produce(centre.names.questions, asked[150:])
        ids = {question.id for question in asked}
        wait_until(lambda: {said.id for said in centre.verdicts(centre.names.verdicts)} == ids, "all", within_s=200)
        shares = [process.total("headwater_taken_total", source="questions") for process in pair]
        assert all(share > 0 for share in shares)
    finally:
        for process in pair:
            if process.started and process.ended is None:
                process.kill()
