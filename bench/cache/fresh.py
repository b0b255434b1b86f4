"""Fresh values in the masked words of a line: others of the same kind, so that its key stays the same.

The time in its header is one more: a gateway remembers times that it has read, and no host sends old ones again.
"""

import re
from random import Random
from typing import Final

from msgspec import Struct

from models.masking import CLOSE, OPEN, Masked, Masking
from quantize.events import body_of, parted

_ATTEMPTS = 50  # a value that was drawn may be of another kind, as one public address in eighty is: then all are anew
_MASK = re.compile(f"{OPEN}([^{CLOSE}]*){CLOSE}")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_OF_A_TIME = re.compile(
    r"(?P<hour>\d{1,2}):\d\d:\d\d(?:(?P<point>[.,])(?P<fraction>\d+))?|(?P<zone>[+-]\d\d:?\d\d\Z)|(?P<year>\d{4})"
    rf"|(?P<number>\d{{1,2}})|(?P<month>{'|'.join(_MONTHS)})|(?P<day>{'|'.join(_DAYS)})"
)
_EPOCH = re.compile(r"(\d\d)(\d+)(?:\.(\d+))?")
_IDENTIFIERS = ("hex of", "pointer of", "uuid of", "mac of")


class Line(Struct, frozen=True):
    """A line as it came, its key, and what of it is masked; of a header, which is no part of the key, times alone."""

    text: str
    key: str | None
    words: tuple[tuple[int, int, str], ...]  # where each begins and ends in `text`, and its mask


def line_of(text: str, masking: Masking) -> Line:
    """Look for the masked words of a line, and the times in its header."""
    header, body = parted(text)
    masked = masking.mask(body)
    if masked is None:
        return Line(text, None, ())
    # From there on the body is the line's own end; before, it may begin with a program that the header wrote otherwise.
    own = len(body) - (len(text.rstrip()) - len(header))
    further = len(header) - own
    times = [word for word in _words(masking.mask(header)) if word[2] == "time"]
    words = [(begin + further, end + further, mask) for begin, end, mask in _words(masked) if begin >= own]
    return Line(text, masked.key, (*times, *words))


def fresh(line: Line, masking: Masking, chance: Random) -> str:
    """Return the line with other values in all of its words, and the same key; the line itself where there are none."""
    for _ in range(_ATTEMPTS if line.words else 0):
        pieces, done = list[str](), 0
        for begin, end, mask in line.words:
            pieces += (line.text[done:begin], another(line.text[begin:end], mask, chance))
            done = end
        text = "".join((*pieces, line.text[done:]))
        masked = masking.mask(body_of(text))
        if masked is not None and masked.key == line.key:
            return text
    return line.text


def another(word: str, mask: str, chance: Random) -> str:
    """Return a word that has the same mask, most of the time."""
    if mask.endswith("address"):
        return _address(word, mask, chance)
    if mask.startswith("time"):
        return _time(word, chance)
    if mask == "port for anyone":
        return str(chance.randrange(32_768, 65_536))
    if mask.startswith(_IDENTIFIERS):
        prefix = "0x" if mask.startswith("pointer") else ""
        return prefix + _hexadecimal(word.removeprefix(prefix), chance)
    return _digits(word, chance)


def _words(masked: Masked | None) -> list[tuple[int, int, str]]:
    if masked is None:
        return []
    named = zip(masked.spans, _MASK.findall(masked.key), strict=True)
    return [(begin, end, mask) for (begin, end), mask in named]


def _address(word: str, mask: str, chance: Random) -> str:
    if ":" in word:
        network, colon, rest = word.partition(":")
        return word if mask == "loopback address" else network + colon + _hexadecimal(rest, chance)
    if mask == "public address":
        return f"{chance.randrange(1, 224)}.{chance.randrange(256)}.{chance.randrange(256)}.{chance.randrange(1, 255)}"
    first, second, *_ = word.split(".")
    return f"{first}.{second}.{chance.randrange(256)}.{chance.randrange(1, 255)}"


def _time(word: str, chance: Random) -> str:
    if epoch := _EPOCH.fullmatch(word):
        begin, rest, fraction = epoch.groups()
        return begin + _any_digits(rest, chance) + (f".{_any_digits(fraction, chance)}" if fraction else "")
    return _OF_A_TIME.sub(lambda part: _of_a_time(part, chance), word)


def _of_a_time(part: re.Match[str], chance: Random) -> str:
    """Return another clock, month, day of the month or of the week; year and zone stay."""
    kind = part.lastgroup
    if hour := part["hour"]:
        of_day = chance.randrange(24 if len(hour) > 1 else 10)
        clock = f"{of_day:0{len(hour)}}:{chance.randrange(60):02}:{chance.randrange(60):02}"
        return clock + (part["point"] + _any_digits(part["fraction"], chance) if part["point"] else "")
    if kind == "number":  # of a day or a month
        return f"{chance.randrange(1, 13 if len(part[0]) > 1 else 10):0{len(part[0])}}"
    if kind == "month":
        return chance.choice(_MONTHS)
    return chance.choice(_DAYS) if kind == "day" else part[0]


def _digits(word: str, chance: Random) -> str:
    """Return a word with other digits; no number begins with 0."""
    return re.sub(r"\d+", lambda found: chance.choice("123456789") + _any_digits(found[0][1:], chance), word)


def _any_digits(digits: str, chance: Random) -> str:
    return "".join(chance.choice("0123456789") for _ in digits)


def _hexadecimal(word: str, chance: Random) -> str:
    letters = "ABCDEF" if re.search("[A-F]", word) else "abcdef"
    return re.sub("[0-9a-fA-F]", lambda _: chance.choice("0123456789" + letters), word)
