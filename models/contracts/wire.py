"""The only encoders and decoders: contracts to bytes and back.

msgspec checks ranges when it decodes, not when we construct; so every byte from outside enters here.
"""

from collections.abc import Sequence
from typing import TypeVar

import msgspec

from models.contracts.errors import ConfigError, InputError
from models.contracts.event import DeadLetter, Event
from models.contracts.verdict import Verdict

T = TypeVar("T")

_encoder = msgspec.json.Encoder()
_verdicts = msgspec.json.Decoder(Verdict)
_dead_letters = msgspec.json.Decoder(DeadLetter)
_events = msgspec.json.Decoder(Event)


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


def decode_json(line: bytes | str, kind: type[T], where: str) -> T:
    """Read a record of `kind`; `where` names the thing in the message.

    Raises:
        InputError: it is not one.
    """
    try:
        return msgspec.json.decode(line, type=kind)
    except msgspec.DecodeError as error:
        raise InputError(f"{where}: {error}") from error


def decode_toml(text: str, kind: type[T], where: str) -> T:
    """Read what an operator wrote; `where` is the file's path.

    Raises:
        ConfigError: the file, the key, what was found and what is wanted.
    """
    try:
        return msgspec.toml.decode(text, type=kind)
    except msgspec.DecodeError as error:
        raise ConfigError(f"{where}: {error}") from error


def _decode(decoder: msgspec.json.Decoder[T], line: bytes) -> T:
    try:
        return decoder.decode(line)
    except msgspec.DecodeError as error:
        raise InputError(str(error)) from error
