"""What strangers do to events: cut them, reorder them, write into them. The label stays."""

import base64
import codecs
import json
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from urllib.parse import quote

from models.contracts.task import Task
from quantize.event_types import EventType
from quantize.expand import Example, example_of, expand
from quantize.records import read_record, reshape, sent_on

_TEXTS: dict[str, list[str]] = tomllib.loads(Path(__file__).with_name("strangers.toml").read_text(encoding="utf-8"))
_RESHAPED, _LACKING, _WRITTEN_INTO, _SENT_ON, _CUT, _LOWERED = 0.6, 0.15, 0.11, 0.08, 0.08, 0.03
_SHORTEST_CUT = 80  # characters
_BESIDE, _IN_A_FIELD = 0.25, 0.45  # of what strangers write; the rest stands anywhere
_ZERO_WIDTH = "\u200b"
_LOOK_ALIKES = str.maketrans("aeiocp", "аеіоср")  # noqa: RUF001 - Cyrillic, wanted
_DIGITS_FOR_LETTERS = str.maketrans("aeiost", "431057")


def draw(types: Sequence[EventType], task: Task, *, seed: int, number: int) -> list[Example]:
    """Return one example per template, drawn and disturbed anew for every `number`."""
    chance = Random(f"{seed}/{number}")  # noqa: S311 - wanted: the same for the same seed
    lines = list(expand(types, copies=1, seed=1_000 * seed + number))
    plain = [line.text for line in lines if line.label not in task.fields_for]
    return [example_of(line, task, lambda body: disturb(body, task.label_names, plain, chance)) for line in lines]


def disturb(body: str, labels: Sequence[str], plain: Sequence[str], chance: Random) -> str:
    """Return `body`, in most cases changed in one or two ways that leave its label right.

    `plain` are harmless events, of which a part may be written into this one; that makes none harmless.
    """
    if chance.random() < _RESHAPED and (record := read_record(body)) is not None:
        body = reshape(record, chance)
    if chance.random() < _LACKING:
        body = _drop_words(body, chance)
    if chance.random() < _WRITTEN_INTO:
        body = _carried(_written(labels, plain, chance), body, chance)
    if chance.random() < _SENT_ON:
        body = sent_on(body, {}, chance)
    if chance.random() < _CUT and len(body) > _SHORTEST_CUT:
        body = body[: chance.randrange(len(body) * 2 // 3, len(body))]
    if chance.random() < _LOWERED:
        body = body.lower()
    return body


def _drop_words(body: str, chance: Random) -> str:
    words = body.split(" ")
    return " ".join(word for word in words if chance.random() > 0.06) or body


def _written(labels: Sequence[str], plain: Sequence[str], chance: Random) -> str:
    """Return what a stranger would write to have an event called one of `labels`, or be overlooked."""
    label = chance.choice(labels)
    kinds: tuple[tuple[float, Callable[[], str]], ...] = (
        (0.30, lambda: chance.choice(_TEXTS["orders"])),
        (0.24, lambda: _chatter(chance)),
        (0.12, lambda: chance.choice(_TEXTS["histories"])),
        (0.12, lambda: chance.choice(_TEXTS["frames"]).replace("{text}", _framed(plain, chance))),
        (0.06, lambda: _shots(chance)),
        (0.06, lambda: chance.choice(_TEXTS["names"])),
        (0.10, lambda: _part_of(plain, chance)),
    )
    shares, writers = zip(*kinds, strict=True)
    text = chance.choices(writers, shares)[0]().replace("{label}", label)
    return chance.choice(_DISGUISES)(text) if chance.random() < 0.12 else text


def _chatter(chance: Random) -> str:
    few = chance.sample(_TEXTS["chatter"], chance.choice((1, 1, 2, 4, 8)))
    repeated = few[:1] * chance.randrange(3, 12)
    return " ".join(repeated if chance.random() < 0.15 else few)


def _framed(plain: Sequence[str], chance: Random) -> str:
    """Return an event that never was, and what it is to be called."""
    event = _part_of(plain, chance) if chance.random() < 0.5 else _chatter(chance)
    return chance.choice((event, f"{event} {chance.choice(_TEXTS['orders'])}", chance.choice(_TEXTS["orders"])))


def _shots(chance: Random) -> str:
    arrow, joint = chance.choice((" -> ", ": ", " = ", " => ")), chance.choice(("\n", "; ", " | ", ", "))
    return joint.join(f"{shot}{arrow}{{label}}" for shot in chance.sample(_TEXTS["shots"], chance.randrange(3, 8)))


def _part_of(plain: Sequence[str], chance: Random) -> str:
    """Return some of a harmless event, from one of its words on."""
    if not plain:
        return _chatter(chance)
    words = chance.choice(plain).split(" ")
    begin = chance.randrange(len(words))
    return " ".join(words[begin:])[: chance.randrange(40, 240)]


def _carried(text: str, body: str, chance: Random) -> str:
    """Write `text` where strangers can: beside the event that a device sends on, in a field of theirs, or anywhere."""
    place = chance.random()
    if place < _BESIDE:
        return sent_on(body, {chance.choice(_TEXTS["keys"]): text}, chance)
    if place < _BESIDE + _IN_A_FIELD:
        return _in_a_record(text, record, chance) if (record := read_record(body)) else _in_a_line(text, body, chance)
    if chance.random() < 0.4:
        return f"{body} {text}"
    if chance.random() < 0.3:
        return f"{text} {body}"
    gaps = [at for at, character in enumerate(body) if character in ' "/'] or [len(body)]
    at = chance.choice(gaps) + 1
    return f"{body[:at]}{text} {body[at:]}"


def _in_a_record(text: str, record: dict[str, object], chance: Random) -> str:
    """Add a field; what stands under a key already stays, for it may be what tells."""
    pairs = list(record.items())
    key = chance.choice([key for key in _TEXTS["keys"] if key not in record] or ["x-comment"])
    pairs.insert(chance.randrange(len(pairs) + 1), (key, text))
    return json.dumps(dict(pairs), ensure_ascii=False)


def _in_a_line(text: str, body: str, chance: Random) -> str:
    """Write `text` behind the event, as loggers would."""
    line = " ".join(text.splitlines())
    key = chance.choice(_TEXTS["keys"])
    forms = (f'{body} {key}="{line}"', f"{body} {key}={line}", f'{body} "{line}"', f"{body} GET /?{key}={quote(line)}")
    return chance.choice((*forms, f"{body} ({line})", f"{body} {key}=/tmp/{line}"))


_DISGUISES: tuple[Callable[[str], str], ...] = (
    str.upper,
    quote,
    _ZERO_WIDTH.join,
    " ".join,
    lambda text: text[::-1],
    lambda text: text.translate(_LOOK_ALIKES),
    lambda text: text.translate(_DIGITS_FOR_LETTERS),
    lambda text: codecs.encode(text, "rot13"),
    lambda text: base64.b64encode(text.encode()).decode(),
    lambda text: text.encode().hex(),
)
