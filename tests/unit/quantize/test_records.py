import json
import re
from random import Random
from typing import Any

import pytest

from quantize import records
from quantize.records import read_record, reshape, write
from quantize.values import Values

RECORD = {
    "eventName": "grantRole",
    "actor": {"user_name": "ivan", "ip": "10.0.0.1"},
    "changes": [{"old_value": "viewer", "newValue": "owner"}],
    "ok": True,
}
TOLD = {"grantRole", "ivan", "10.0.0.1", "viewer", "owner"}


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for within in value.values() for leaf in leaves(within)]
    if isinstance(value, list):
        return [leaf for within in value for leaf in leaves(within)]
    return [value]


def test_every_placeholder_is_one_that_values_are_drawn_for() -> None:
    drawn = set(Values(Random(0)).names)
    text = json.dumps(records._KEYS)

    assert set(re.findall(r"\{([a-z_0-9]+)\}", text)) <= drawn


def test_every_key_of_a_group_has_values() -> None:
    assert {name for names in records._GROUPS.values() for name in names} <= records._KEYS.keys()


@pytest.mark.parametrize("text", ['{"a":1} behind', "[1]", "plain", '{"a":', "{}x"])
def test_what_is_no_object_is_no_record(text: str) -> None:
    assert read_record(text) is None


def test_a_reshaped_record_is_one_and_still_says_what_it_said() -> None:
    for number in range(500):
        record = read_record(reshape(json.loads(json.dumps(RECORD)), Random(number)))

        assert record is not None
        said = json.dumps(leaves(record)).replace('\\"', '"')
        assert all(value in said for value in TOLD), said


def test_some_records_grow_and_some_travel_in_another() -> None:
    reshaped = [json.loads(reshape(json.loads(json.dumps(RECORD)), Random(number))) for number in range(300)]
    spelt = [{key.lower().replace("_", "") for key in record} for record in reshaped]

    assert sum(len(record) > 6 for record in reshaped) > 30
    assert sum("eventname" not in keys for keys in spelt) > 15
    assert sum("event_name" in record for record in reshaped) > 3


def test_the_same_chance_reshapes_alike() -> None:
    def once(number: int) -> str:
        return reshape(json.loads(json.dumps(RECORD)), Random(number))

    assert [once(number) for number in range(50)] == [once(number) for number in range(50)]


def test_letters_of_every_language_stay_letters() -> None:
    assert "Überprüfung" in write({"name": "Überprüfung"}, Random(0))
