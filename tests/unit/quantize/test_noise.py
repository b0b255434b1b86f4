import json
from random import Random

from quantize.noise import disturb

LABELS = ("benign", "suspicious", "critical")
RECORD = '{"event":"login","user":"ivan","ip":"10.0.0.1","ok":true}'


def test_the_same_chance_disturbs_alike() -> None:
    assert [disturb(RECORD, LABELS, Random(n)) for n in range(50)] == [
        disturb(RECORD, LABELS, Random(n)) for n in range(50)
    ]


def test_a_reshaped_record_keeps_its_values() -> None:
    records = []
    for n in range(200):
        try:
            records.append(json.loads(disturb(RECORD, LABELS, Random(n))))
        except ValueError:
            continue  # cut, or with an instruction in it
    kept = [record for record in records if {"event", "user", "ip", "ok"} <= record.keys()]

    assert len(kept) > 100
    assert all(record["user"].lower() == "ivan" for record in kept)
    assert any(len(record) > 4 for record in kept)


def test_nothing_is_disturbed_to_nothing() -> None:
    assert all(disturb("x", LABELS, Random(n)) for n in range(500))
