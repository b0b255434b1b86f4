import json
from random import Random

from quantize.envelope import wrap
from quantize.values import Values

LINE = 'sshd[81]: Failed password for "ivan" from 198.51.100.7 port 51022 ssh2'


def wrapped(event: str, number: int) -> str:
    chance = Random(number)
    return wrap(event, event, Values(chance), chance)


def test_a_line_arrives_bare_with_a_header_or_in_the_json_of_a_forwarder() -> None:
    found = [wrapped(LINE, number) for number in range(400)]
    forwarded = [json.loads(text) for text in found if text.startswith("{")]

    assert sum(text == LINE for text in found) > 100
    assert sum(text.startswith("<") for text in found) > 50
    assert 20 < len(forwarded) < 100
    assert all(any(str(value).rstrip("\n") == LINE for value in record.values()) for record in forwarded)
    assert len({frozenset(record) for record in forwarded}) == 6


def test_a_record_is_not_put_into_another_by_its_forwarder() -> None:
    record = '{"event":"login"}'

    assert all(text.endswith(record) for text in (wrapped(record, number) for number in range(200)))
