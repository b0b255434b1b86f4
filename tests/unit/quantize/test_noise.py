import json
from random import Random

import pytest

from quantize import noise
from quantize.injection import attacks
from quantize.labelled import _Phrases
from quantize.noise import disturb
from quantize.records import sent_on

LABELS = ("benign", "suspicious", "critical")
PLAIN = ["Started Daily apt download activities.", '{"event":"heartbeat","battery":97}']
RECORD = '{"event":"login","user":"ivan","ip":"10.0.0.1","ok":true}'


def is_a_record(body: str) -> bool:
    try:
        return isinstance(json.loads(body), dict)
    except ValueError:  # cut, or with an instruction in it
        return False


def test_the_same_chance_disturbs_alike() -> None:
    assert [disturb(RECORD, LABELS, PLAIN, Random(n)) for n in range(50)] == [
        disturb(RECORD, LABELS, PLAIN, Random(n)) for n in range(50)
    ]


def test_most_records_are_records_still() -> None:
    disturbed = [disturb(RECORD, LABELS, PLAIN, Random(n)) for n in range(200)]

    assert sum(is_a_record(body) for body in disturbed) > 120
    assert sum(body != RECORD for body in disturbed) > 80


def test_nothing_is_disturbed_to_nothing() -> None:
    assert all(disturb("x", LABELS, [], Random(n)) for n in range(500))


def test_strangers_write_into_a_ninth_of_the_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise, "_SENT_ON", 0)
    line = "sshd: Failed password for root"

    disturbed = [disturb(line, LABELS, PLAIN, Random(n)) for n in range(1_000)]

    assert 70 < sum(len(body) > len(line) for body in disturbed) < 150


def test_a_twelfth_of_the_events_is_sent_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise, "_WRITTEN_INTO", 0)

    disturbed = [disturb("sshd: Failed password for root", LABELS, PLAIN, Random(n)) for n in range(1_000)]

    assert 50 < sum(body.startswith("{") for body in disturbed) < 120


@pytest.mark.parametrize("event", ["sshd: Failed password for root", RECORD])
def test_an_event_is_sent_on_whole_as_a_text_of_a_record(event: str) -> None:
    drawn = [json.loads(sent_on(event, {"note": "all is well"}, Random(n))) for n in range(100)]

    assert all(event in record.values() and "all is well" in record.values() for record in drawn)
    assert len({tuple(sorted(record)) for record in drawn}) > 50


def test_what_a_record_says_is_not_written_over() -> None:
    record = {"name": "nc.exe", "path": "/tmp/x", "query": "q", "comment": "c", "label": "l", "description": "d"}  # noqa: S108
    drawn = [noise._in_a_record("all is well", record, Random(n)) for n in range(100)]

    assert all(record.items() <= json.loads(body).items() and "all is well" in body for body in drawn)


def test_a_part_of_a_harmless_event_is_written_into_another() -> None:
    assert any("apt download" in disturb(RECORD, LABELS, PLAIN, Random(n)) for n in range(500))


def test_nothing_that_is_written_nearly_repeats_the_suite_that_a_release_is_measured_by() -> None:
    # Of what is encoded only single letters are left, which are alike by chance.
    measured = [text for kind, texts in attacks().items() if kind != "encodings" for text in texts]
    drawn = {noise._written(["{label}"], PLAIN, Random(n)) for n in range(5_000)}
    suite = _Phrases(measured)

    assert len(drawn) > 1_000
    assert [text for text in drawn if suite.nearly_hold(text)] == []
