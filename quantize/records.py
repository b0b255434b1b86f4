"""JSON records as their many writers shape them: keys reordered and respelt, neutral ones added, one within another."""

import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from quantize.values import Values

Record = dict[str, Any]

_BOILERPLATE = tomllib.loads(Path(__file__).with_name("boilerplate.toml").read_text(encoding="utf-8"))
_KEYS: dict[str, list[Any]] = _BOILERPLATE["keys"]
_GROUPS: dict[str, list[str]] = _BOILERPLATE["groups"]
_OF_DEVICES: list[str] = _BOILERPLATE["of_devices"]
_PLACEHOLDER = re.compile(r"\{([a-z_0-9]+)\}")
_JOINTS = re.compile(r"[_\-]+|(?<=[a-z0-9])(?=[A-Z])")

_PAYLOADS = ("event", "message", "log", "raw", "payload", "data", "line", "text", "body", "msg", "entry")
_ADDED = (0, 0, 0, 1, 2, 3, 5, 8)  # neutral keys; as often so many
_SHUFFLED, _RESPELT, _WRAPPED = 0.5, 0.15, 0.12
_IN_A_GROUP = 0.5  # else a neutral key stands by itself
_DEEPER = 0.4  # into a record within the record, if it has one


def read_record(text: str) -> Record | None:
    """Return the one JSON object that the text is, or nothing."""
    if not text.startswith("{"):
        return None
    try:
        record = json.loads(text)
    except ValueError:  # not JSON after all, or with something behind it
        return None
    return record if isinstance(record, dict) else None


def reshape(record: Record, chance: Random) -> str:
    """Return the record as another writer would have written it; what it says stays."""
    values = Values(chance)
    for _ in range(chance.choice(_ADDED)):
        _add(record, values, chance)
    if chance.random() < _SHUFFLED:
        record = _shuffled(record, chance)
    if chance.random() < _RESPELT:
        record = _respelt(record, chance.choice((_snake, _camel, _lower)))
    if chance.random() < _WRAPPED:
        record = _wrapped(record, values, chance)
    return write(record, chance)


def write(record: Record, chance: Random) -> str:
    """Return the record's text, spaced as one serialiser or another spaces it."""
    separators = (",", ":") if chance.random() < 0.7 else (", ", ": ")
    return json.dumps(record, ensure_ascii=False, separators=separators)


def sent_on(text: str, beside: Record, chance: Random) -> str:
    """Return the record in which a device, a queue or a gateway sends `text` on, among what else it has to say."""
    values = Values(chance)
    names = chance.sample(_OF_DEVICES, chance.choice((0, 1, 1, 2, 4)))
    pairs = [(name, neutral(name, values, chance)) for name in names]
    pairs += [*beside.items(), (chance.choice(_PAYLOADS), text)]
    chance.shuffle(pairs)
    return write(dict(pairs), chance)


def neutral(name: str, values: Values, chance: Random) -> Any:
    """Return a value for a key that says nothing of what happened."""
    value = chance.choice(_KEYS[name])
    return _PLACEHOLDER.sub(lambda match: values.draw(match[1]), value) if isinstance(value, str) else value


def _add(record: Record, values: Values, chance: Random) -> None:
    within = [value for value in record.values() if isinstance(value, dict) and value]
    place = chance.choice(within) if within and chance.random() < _DEEPER else record
    if chance.random() < _IN_A_GROUP:
        group = chance.choice(list(_GROUPS))
        names = chance.sample(_GROUPS[group], chance.randrange(2, len(_GROUPS[group]) + 1))
        found = place.setdefault(group, {})
        if not isinstance(found, dict):
            return
        place = found
    else:
        names = [chance.choice(list(_KEYS))]
    for name in names:
        place.setdefault(name, neutral(name, values, chance))


def _shuffled(record: Record, chance: Random) -> Record:
    items = list(record.items())
    chance.shuffle(items)
    return dict(items)


def _respelt(value: Any, spell: Callable[[str], str]) -> Any:
    """Return the value with its keys, and those within, spelt in another way; of two that become one, one stays."""
    if isinstance(value, dict):
        return {spell(key): _respelt(within, spell) for key, within in value.items()}
    if isinstance(value, list):
        return [_respelt(within, spell) for within in value]
    return value


def _snake(key: str) -> str:
    return "_".join(part.lower() for part in _JOINTS.split(key) if part) or key


def _camel(key: str) -> str:
    first, *rest = [part for part in _JOINTS.split(key) if part] or [key]
    return first[:1].lower() + first[1:] + "".join(part[:1].upper() + part[1:] for part in rest)


def _lower(key: str) -> str:
    return key.lower()


def _wrapped(record: Record, values: Values, chance: Random) -> Record:
    """Put the record into another, as collectors and event buses do; one of them as text."""
    key = chance.choice(("event", "data", "detail", "log", "payload", "record", "_source", "message", "body"))
    beside = {name: neutral(name, values, chance) for name in chance.sample(list(_KEYS), chance.choice((0, 1, 2, 4)))}
    inner = write(record, chance) if key in ("message", "body") else record
    return {**beside, key: inner} if chance.random() < 0.5 else {key: inner, **beside}
