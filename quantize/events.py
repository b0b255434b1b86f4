"""Events as a file has them, and what a gateway would hand to a model of each: its body, without the header."""

from codecs import BOM_UTF8
from itertools import takewhile
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from models.contracts.errors import ConfigError, InputError
from models.header import split

_NOW_MS = 1_767_225_600_000  # stamps without a year are read as of then; the body does not depend on it


class Events(Struct, frozen=True):
    """The texts of a file, in order, and how many of its lines have none."""

    texts: list[str]
    without: int = 0

    def left_out(self, file: Path, field: str) -> str:
        """Return a sentence about the lines that have no text; nothing, where all have one."""
        of = len(self.texts) + self.without
        return f"{file}: left out {self.without} of {of} lines: no text at `{field}`" if self.without else ""


def read_events(path: Path, field: str = "") -> Events:
    """Read a text per line; with `field`, `a.b.c`, what stands at that path of the JSON that the line is.

    A line is read as a gateway reads it: what is no UTF-8 becomes U+FFFD, and a blank one is nothing.

    Raises:
        ConfigError: the file cannot be read.
        InputError: no line of it has a text.
    """
    lines = [line for line in content_of(path).split(b"\n") if line.strip()]
    found = [_text_at(line, field) if field else line.decode("utf-8", "replace").rstrip("\r") for line in lines]
    texts = [text for text in found if text is not None]
    if not texts:
        wanted = f"JSON with a text at `{field}`" if field else "a line of text for each event"
        raise InputError(f"{path}: {len(lines)} lines, and not one event in them; wanted {wanted}")
    return Events(texts, len(lines) - len(texts))


def is_labelled(path: Path) -> bool:
    """Tell whether a file means to be labelled events: its first line is JSON with `text` or `label`.

    Where one of the two is missing, it is misspelt: as plain lines a model would read the labels, too.

    Raises:
        ConfigError: the file cannot be read.
    """
    first = next((line for line in content_of(path).split(b"\n") if line.strip()), b"")
    try:
        row = msgspec.json.decode(first)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return isinstance(row, dict) and ("text" in row or "label" in row)


def body_of(text: str) -> str:
    """Return what a model reads of an event."""
    return split(text, _NOW_MS).body


def parted(text: str) -> tuple[str, str]:
    """Return an event's header as it stands there, and its body.

    The body may begin with a part of the header: of `Jan  2 03:04:05 web-1 sshd[7]: hello` it is `sshd: hello`.
    """
    body, whole = body_of(text), text.rstrip()
    pairs = zip(reversed(whole), reversed(body), strict=False)
    alike = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    return whole[: len(whole) - alike], body


def content_of(path: Path) -> bytes:
    """Return what a file holds, without the byte order mark that editors on Windows write.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return path.read_bytes().removeprefix(BOM_UTF8)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error


def _text_at(line: bytes, field: str) -> str | None:
    try:
        found: Any = msgspec.json.decode(line.decode("utf-8", "replace"))
    except msgspec.DecodeError:
        return None
    for key in field.split("."):
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, str) and found.strip() else None
