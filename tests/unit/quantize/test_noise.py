import json
from random import Random

from quantize.noise import disturb

LABELS = ("benign", "suspicious", "critical")
RECORD = '{"event":"login","user":"ivan","ip":"10.0.0.1","ok":true}'


def is_a_record(body: str) -> bool:
    try:
        return isinstance(json.loads(body), dict)
    except ValueError:  # cut, or with an instruction in it
        return False


def test_the_same_chance_disturbs_alike() -> None:
    assert [disturb(RECORD, LABELS, Random(n)) for n in range(50)] == [
        disturb(RECORD, LABELS, Random(n)) for n in range(50)
    ]


def test_most_records_are_records_still() -> None:
    disturbed = [disturb(RECORD, LABELS, Random(n)) for n in range(200)]

    assert sum(is_a_record(body) for body in disturbed) > 120
    assert sum(body != RECORD for body in disturbed) > 80


def test_nothing_is_disturbed_to_nothing() -> None:
    assert all(disturb("x", LABELS, Random(n)) for n in range(500))
