"""Event types to examples: alternatives chosen, placeholders filled, an envelope around it, fields that occur in it."""

import re
from collections.abc import Callable, Iterator, Sequence
from random import Random

from msgspec import Struct

from models.contracts.scalars import UnixMillis
from models.contracts.task import Task
from models.fields import VALUE_MAX_BYTES, occurs
from models.header import split
from quantize.envelope import wrap
from quantize.event_types import EventType
from quantize.values import Values

_PLACEHOLDER = re.compile(r"\{(" + "|".join(sorted(Values(Random(0)).names, key=len, reverse=True)) + r")\}")  # noqa: S311 - no secret

_ALTERNATIVES = re.compile(r"\[\[([^\[\]]*\|[^\[\]]*)\]\]")

# Within one event these mostly mean one and the same thing wherever they stand; the others are drawn afresh.
_SAME_THING = frozenset((
    "host", "fqdn", "user", "admin_user", "svc_user", "email", "ext_email", "ip", "ext_ip", "domain", "evil_domain",
    "file", "path", "win_path", "exe", "service", "db", "table", "bucket", "repo", "org", "account_id", "device",
    "region", "url", "session", "proc", "country", "city",
))  # fmt: skip
_REPEATS = 0.85


NOW_MS: UnixMillis = 1_767_225_600_000  # 2026-01-01: the body does not depend on it, and a clock would make runs differ


class Line(Struct, frozen=True):
    """A record as a gateway would receive it, and what is true of it."""

    text: str
    label: str
    product: str
    technique: str | None
    roles: tuple[tuple[str, tuple[str, ...]], ...]  # field name to values; not every value has to be in `text`


class Example(Struct, frozen=True):
    """What the model reads, and the answer that it is to give."""

    body: str
    label: str
    product: str
    fields: dict[str, tuple[str, ...]]  # only values that occur in `body`, or are one of the task's choices


def expand(types: Sequence[EventType], copies: int, seed: int) -> Iterator[Line]:
    """Yield `copies` lines per template; a template's lines do not depend on which others are there."""
    for kind in types:
        for number, template in enumerate(kind.templates):
            for copy in range(copies):
                origin = f"{seed}/{kind.product}/{kind.why}/{number}/{copy}"
                yield _line(kind, template, Random(origin))  # noqa: S311 - wanted: the same for the same seed


def example_of(line: Line, task: Task, change: Callable[[str], str] = str) -> Example:
    """Split off the header as a gateway does, and keep the fields that the task asks for and the text holds.

    `change` disturbs what the model reads; what it takes away is no field any more.
    """
    body = change(split(line.text, NOW_MS).body)
    if line.label not in task.fields_for:
        return Example(body, line.label, line.product, {})
    roles = dict(line.roles)
    fields: dict[str, tuple[str, ...]] = {}
    for field in task.fields:
        if field.kind == "choice":
            values = _known_technique(line.technique, field.choices)
        else:
            values = tuple(dict.fromkeys(value for value in roles.get(field.name, ()) if _can_be_copied(value, body)))
        if values:
            fields[field.name] = values[: field.max_values]
    return Example(body, line.label, line.product, fields)


def _line(kind: EventType, template: str, chance: Random) -> Line:
    values = Values(chance)
    first: dict[str, str] = {}
    template = _ALTERNATIVES.sub(lambda match: chance.choice(match[1].split("|")), template)

    def fill(match: re.Match[str]) -> str:
        name = match[1]
        if name in first and name in _SAME_THING and chance.random() < _REPEATS:
            return first[name]
        value = values.draw(name)
        first.setdefault(name, value)
        return value

    def role(wanted: str) -> str:
        """Fill a role with the values that the event got; one with a placeholder that the event lacks is nothing."""
        if any(name not in first for name in _PLACEHOLDER.findall(wanted)):
            return ""
        return _PLACEHOLDER.sub(lambda match: first[match[1]], wanted)

    text = wrap(_PLACEHOLDER.sub(fill, template), template, values, chance)
    roles = (
        ("source", tuple(filter(None, [role(kind.fields.source or "")]))),
        ("target", tuple(filter(None, [role(kind.fields.target or "")]))),
        ("observable", tuple(filter(None, map(role, kind.fields.observable)))),
    )
    return Line(" ".join(text.splitlines()), kind.label, kind.product, kind.technique, roles)


def _known_technique(technique: str | None, choices: Sequence[str]) -> tuple[str, ...]:
    """A sub-technique that is no choice counts as its parent."""
    if technique is None:
        return ()
    for candidate in (technique, technique.partition(".")[0]):
        if candidate in choices:
            return (candidate,)
    return ()


def _can_be_copied(value: str, body: str) -> bool:
    """What `models.fields` would refuse to write, or a decoder to copy, is not taught."""
    writable = value != "-" and value == value.strip() and ";" not in value and len(value.encode()) <= VALUE_MAX_BYTES
    return writable and occurs(value, body)
