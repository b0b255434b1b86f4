"""The only encoders and decoders: contracts to bytes and back.

msgspec checks ranges when it decodes, not when we construct; so every byte from outside enters here.
"""

import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import TypeVar

import msgspec
from msgspec import inspect

from models.contracts.answer import Answer
from models.contracts.errors import ConfigError, InputError
from models.contracts.event import DeadLetter, Event
from models.contracts.incident import Incident
from models.contracts.verdict import Verdict

T = TypeVar("T")

NOT_DECODED = (msgspec.DecodeError, UnicodeError, RecursionError)
"""What msgspec raises where bytes are no record; the others for a bad byte inside a string and a value too deep."""

_ABOUT = re.compile(
    r"Object contains unknown field `(?P<unknown>[^`]*)`"
    r"|Object missing required field `(?P<missing>[^`]*)`"
    r"|Invalid value '(?P<value>[^']*)'"
    r"|Invalid enum value '(?P<word>[^']*)'"
)

_encoder = msgspec.json.Encoder()
_verdicts = msgspec.json.Decoder(Verdict)
_dead_letters = msgspec.json.Decoder(DeadLetter)
_events = msgspec.json.Decoder(Event)
_incidents = msgspec.json.Decoder(Incident)
_answers = msgspec.json.Decoder(Answer)
_delivered: msgspec.json.Decoder[Verdict | Incident] = msgspec.json.Decoder(Verdict | Incident)


def encode(record: msgspec.Struct) -> bytes:
    """Return one record as JSON, without a line end."""
    return _encoder.encode(record)


def encode_lines(records: Sequence[msgspec.Struct]) -> bytes:
    """Return records as JSON lines, each with its line end."""
    return _encoder.encode_lines(records)


def decode_verdict(line: bytes) -> Verdict:
    """Read a verdict.

    Raises:
        InputError: it is not one.
    """
    return _decode(_verdicts, line)


def decode_dead_letter(line: bytes) -> DeadLetter:
    """Read a dead letter.

    Raises:
        InputError: it is not one.
    """
    return _decode(_dead_letters, line)


def decode_event(line: bytes) -> Event:
    """Read an event.

    Raises:
        InputError: it is not one.
    """
    return _decode(_events, line)


def decode_answer(line: bytes) -> Answer:
    """Read what a person said.

    Raises:
        InputError: it is nothing of the kind.
    """
    return _decode(_answers, line)


def decode_incident(line: bytes) -> Incident:
    """Read an incident.

    Raises:
        InputError: it is not one.
    """
    return _decode(_incidents, line)


def decode_delivered(line: bytes) -> Verdict | Incident:
    """Read what is delivered to where people look.

    Raises:
        InputError: it is neither.
    """
    return _decode(_delivered, line)


def decode_json(line: bytes | str, kind: type[T], where: str) -> T:
    """Read a record of `kind`; `where` names the thing in the message.

    Raises:
        InputError: it is not one.
    """
    try:
        return msgspec.json.decode(line, type=kind)
    except NOT_DECODED as error:
        raise InputError(f"{where}: {error}") from error


def decode_toml(text: str, kind: type[T], where: str) -> T:
    """Read what an operator wrote; `where` is the file's path.

    Raises:
        ConfigError: the file, the key, what was found and what is wanted.
    """
    try:
        return msgspec.toml.decode(text, type=kind)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {error}{_wanted(text, kind, str(error))}") from error
    except msgspec.DecodeError as error:
        raise ConfigError(f"{where}: {error}") from error


def _wanted(text: str, kind: type, message: str) -> str:
    """Return what would have been right where `message` says only what was wrong."""
    told = _ABOUT.match(message)
    if told is None:
        return ""
    wrong, missing = told["unknown"] or told["value"], told["missing"]
    for part, value in _parts(inspect.type_info(kind), msgspec.toml.decode(text)):
        if isinstance(part, inspect.UnionType):
            sections = [each for each in part.types if isinstance(each, inspect.StructType)]
            tags = {str(each.tag): each.tag_field for each in sections if each.tag_field is not None}
            for key in set(tags.values()):
                if (value.get(key) == wrong and wrong not in tags) or (key == missing and key not in value):
                    return _nearest(str(value.get(key, "")), list(tags))
        elif told["unknown"] and wrong in value:
            known = [each.encode_name for each in part.fields]
            if wrong not in (*known, part.tag_field):
                return _nearest(wrong, known)
        elif told["word"] and (words := _instead_of(told["word"], part, value)):
            return _nearest(told["word"], words)
    return ""


def _instead_of(word: str, part: inspect.StructType, value: dict[str, object]) -> list[str]:
    """Return what a key of this section might have had instead of a word; nothing where none has it wrongly."""
    for field in part.fields:
        words, found = _words(field.type), value.get(field.encode_name)
        if words and word not in words and word in (found if isinstance(found, list) else [found]):
            return words
    return []


def _words(kind: inspect.Type) -> list[str]:
    """Return the words that a key, or each item of its list, is one of; none where it may be something else."""
    if isinstance(kind, inspect.UnionType):
        return [word for each in kind.types for word in _words(each)]
    if isinstance(kind, inspect.VarTupleType | inspect.ListType):
        return _words(kind.item_type)
    return [str(each) for each in kind.values if each] if isinstance(kind, inspect.LiteralType) else []


def _nearest(found: str, known: list[str]) -> str:
    near = get_close_matches(found, known, n=1)
    if near:
        return f"; wanted perhaps `{near[0]}`"
    return "; wanted one of " + ", ".join(f"`{each}`" for each in known)


def _parts(
    kind: inspect.Type, value: object
) -> Iterator[tuple[inspect.StructType | inspect.UnionType, dict[str, object]]]:
    """Yield every table of a document with the section, or the choice of sections, that stands for it."""
    if isinstance(kind, inspect.VarTupleType | inspect.ListType) and isinstance(value, list):
        for item in value:
            yield from _parts(kind.item_type, item)
    elif isinstance(kind, inspect.UnionType) and isinstance(value, dict):
        yield kind, value
        for each in kind.types:
            if isinstance(each, inspect.StructType) and (not each.tag_field or value.get(each.tag_field) == each.tag):
                yield from _parts(each, value)
    elif isinstance(kind, inspect.StructType) and isinstance(value, dict):
        yield kind, value
        for field in kind.fields:
            yield from _parts(field.type, value.get(field.encode_name))


def _decode(decoder: msgspec.json.Decoder[T], line: bytes) -> T:
    try:
        return decoder.decode(line)
    except NOT_DECODED as error:
        raise InputError(str(error)) from error
