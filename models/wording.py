"""An event's text as words that a pretrained encoder knows, and where in the event each of them stands. Pure.

Encoders were trained on sentences. Of a JSON record their vocabulary makes a token of every quote and brace, five or
twenty of an identifier that occurs once in a lifetime, and nothing it knows of `requireTwoFactorDisabled`. So names
are parted into words, marks of structure become the marks of a list, and what never repeats is named by its kind:
`id`, `hash`, `number`, `private ip`. An event has half the tokens then, and says more to the model.

What attackers write stays as it is, but for percent-encoding, which is undone: payloads are made of marks.

`words-2` first gives what the verdict cache masks (`models/masking.py`) one value for all of a mask: `private ip` for
every private address, `100` for every number of three digits before a unit. Two events with one key have the same words
then, and whoever reads words cannot say one thing of the one and another of the other. `words-1` leaves clock times,
short counters, amounts, decimals, pointers and hardware addresses as they are written.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise

from msgspec import Struct

from models.contracts.release import WordingName
from models.masking import CLOSE, OPEN, Masked, Masking

_LONGEST_AMOUNT = 9  # of digits; a gigabyte in bytes has ten, and so have most identifiers
_METADATA_SERVICE = "169.254.169.254"  # of every large cloud; whoever asks it may get credentials
_SHORTEST_BASE64 = 40  # of characters; what is shorter is a name more often than a text
_MAX_CHARACTERS = 16_384  # beyond what 512 tokens can say

_UUID = r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
_STAMP = r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?:\s?(?:Z|UTC|[+-]\d\d:?\d\d))?)?"
_EPOCH = r"1[4-9]\d{8}(?:\.\d+|\d{3}|\d{6}|\d{9})?"
_ALONE_BEFORE, _ALONE_AFTER = r"(?<![0-9A-Za-z])", r"(?![0-9A-Za-z])"

# The first that matches at a place decides. A run of one kind of marks is tried from its first alone, and never given
# back in part: a line of 16,000 braces is read in milliseconds so, and not in seconds.
_KINDS: dict[str, str] = {
    # A pair that says nothing of this event: for whom it was, when, under which number; or that says nothing at all.
    "pair": rf'(?:(?:"|(?<![\]}}]))\s*+[\]}}]*+\s*+,\s*+|(?<![{{\[])[{{\[]++\s*+)?"[\w.@$-]{{1,48}}"\s*+:\s*+'
    rf'(?:"(?:{_UUID}|{_STAMP}|{_EPOCH}|(?=\w*\d)[0-9a-f]{{16}}|\d{{9,}})?"|{_EPOCH}|\d{{9,}}|null)(?=\s*[,}}\]])',
    "encoded": r"%(?:25)*[0-9A-Fa-f]{2}",
    "uuid": rf"{_ALONE_BEFORE}{_UUID}{_ALONE_AFTER}",
    "stamp": rf"{_ALONE_BEFORE}{_STAMP}{_ALONE_AFTER}",
    "ip4": r"(?<![\w.])\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}(?![\w.])",
    "ip6": r"(?<![\w:])(?:(?:[0-9a-fA-F]{1,4}:){3,7}(?::?[0-9a-fA-F]{1,4})?"
    r"|(?=[0-9a-fA-F:]*\d)(?:[0-9a-fA-F]{1,4}(?::[0-9a-fA-F]{1,4}){0,2})?::(?:[0-9a-fA-F]{1,4}(?::[0-9a-fA-F]{1,4}){0,6})?)"
    r"(?![\w:])",
    "hash": rf"{_ALONE_BEFORE}(?:[0-9a-fA-F]{{64}}|[0-9a-fA-F]{{40}}|[0-9a-fA-F]{{32}}){_ALONE_AFTER}",
    "hex": rf"{_ALONE_BEFORE}(?=[0-9a-fA-F]*\d)(?=[0-9a-fA-F]*[a-fA-F])[0-9a-fA-F]{{8,}}{_ALONE_AFTER}",
    "blob": r"(?<![\w+/.-])(?=[\w+/-]{0,40}\d)(?=[\w+/-]{0,40}[A-Z])(?=[\w+/-]{0,40}[a-z])(?=[\w+-]{12})"
    r"[\w+/-]{24,}={0,2}",
    "epoch": rf"(?<!\d){_EPOCH}(?!\d)",
    "digits": r"(?<!\d)\d{5,}(?!\d)",
    "closing": r"</[\w:.]+>",
    "structure": r'(?<!\\)\\*+"(?:\s*+[\]}]*+\s*+[:,]\s*+[\[{]*+\s*+\\*+"?|\s*+[\]}]++)'
    r'|(?<![\[{])[\[{]++\s*+\\*+"|(?<![\]}])[\]}]*+\s*+,\s*+[{\[]*+\s*+\\*+"'
    r"|(?<=[\w\]])[\]}]++(?=\s*+(?:,|$))",
    "break": r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])",
    "underscore": r"(?<=[0-9A-Za-z])_+(?=[0-9A-Za-z])",
    "run": r"(?P<mark>[-=*#~])(?P=mark){3,}",
    "space": r"\s+",
    "kept": r"(?<=[\w\]])[\]}]++",
}
_SCANNER = re.compile("|".join(f"(?P<{kind}>{pattern})" for kind, pattern in _KINDS.items()))
_MASKING = Masking()  # of all kinds: what a policy masks less of, its cache tells apart and the words do not
_MASK = re.compile(f"{OPEN}([^{CLOSE}]*){CLOSE}")

Piece = tuple[str, int, int]
"""What is written, and the begin and end of what it stands for."""


class Wording(Struct, frozen=True):
    """The words, and for each of their characters where it stands in the event."""

    text: str
    pieces: tuple[Piece, ...]  # in order

    @property
    def end(self) -> int:
        """How far into the event the words reach."""
        return self.pieces[-1][2] if self.pieces else 0

    def origins(self) -> list[tuple[int, int]]:
        """Return begin and end in the event of every character of `text`."""
        spans: list[tuple[int, int]] = []
        for written, begin, end in self.pieces:
            if len(written) == end - begin:
                spans += [(at, at + 1) for at in range(begin, end)]
            else:
                spans += [(begin, end)] * len(written)
        return spans


def words_of(event: str, wording: WordingName) -> Wording:
    """Return the event's words, or the event itself by no wording; in time that grows with its length alone."""
    if not wording:
        return Wording(event, ((event, 0, len(event)),))
    event = event[:_MAX_CHARACTERS]
    masked = _MASKING.mask(event) if wording == "words-2" else None
    pieces = _pieces(event) if masked is None else _pieces_of_masked(event, masked)
    return Wording("".join(written for written, _, _ in pieces), tuple(pieces))


def _pieces(event: str) -> list[Piece]:
    pieces: list[Piece] = []
    done = 0
    for match in _SCANNER.finditer(event):
        begin, end = match.span()
        if begin > done:
            pieces.append((event[done:begin], done, begin))
        kind = match.lastgroup or ""
        pieces.append((_WRITTEN[kind](match[0]), begin, end))
        done = end
    if done < len(event):
        pieces.append((event[done:], done, len(event)))
    return pieces


def _pieces_of_masked(event: str, masked: Masked) -> list[Piece]:
    """Return the pieces of the event with one value for all of a mask, and where they stand in the event as it is."""
    written: list[str] = []
    begins, origins = [0], [0]  # of what is kept, a value, what is kept, …: as it is written, and in the event
    done = 0
    for mask, (begin, end) in zip(_MASK.findall(masked.key), masked.spans, strict=True):
        value = _value_of(mask)
        written += (event[done:begin], value)
        begins += (begins[-1] + begin - done, begins[-1] + begin - done + len(value))
        origins += (begin, end)
        done = end
    written.append(event[done:])

    def origin(at: int) -> int:
        """Return where in the event stands what is written here; within a value, its end."""
        part = bisect_right(begins, at) - 1
        if part % 2 and at > begins[part]:
            return origins[part + 1]
        return origins[part] + at - begins[part]

    pieces: list[Piece] = []
    for piece, begin, end in _pieces("".join(written)):
        if len(piece) != end - begin:
            pieces.append((piece, origin(begin), origin(end)))
            continue
        inside = begins[bisect_right(begins, begin) : bisect_left(begins, end)]
        cuts = [begin, *dict.fromkeys(inside), end]
        pieces += [(piece[a - begin : b - begin], origin(a), origin(b)) for a, b in pairwise(cuts)]
    return pieces


@lru_cache(4096)
def _value_of(mask: str) -> str:
    """Return what is written for all that has this mask; `words-1` names its kind, or reads it as it is."""
    size, _, unit = mask.partition(" digits")
    if unit or size.isdigit():
        return "1" + "0" * (int(size) - 1) + unit.removeprefix(" of ").replace("decimal", "")
    kind, _, length = mask.partition(" of ")
    if kind == "hex":
        return ("0a" * int(length))[: int(length)]
    if kind == "time" and length:
        return _TIME.ljust(int(length.removesuffix(" digits")), "0")
    return _VALUES[kind]


def _address(written: str) -> str:
    """Name the kind of an IPv4 address; what is none, a version number perhaps, stays."""
    parts = [int(part) for part in written.split(".")]
    if max(parts) > 255:
        return written
    first, second = parts[:2]
    if written == "0.0.0.0":  # noqa: S104 - it is read here, and nothing binds to it
        return "any ip"
    if written == _METADATA_SERVICE:
        return "metadata ip"
    if first == 127:
        return "loopback ip"
    if first == 10 or (first, second) in ((192, 168), (169, 254)) or (first == 172 and 16 <= second < 32):
        return "private ip"
    return "public ip"


def _blob(written: str) -> str:
    """Tell a text that was encoded from an identifier."""
    return "base64" if len(written) >= _SHORTEST_BASE64 or written.endswith("=") else "id"


def _decoded(written: str) -> str:
    """Undo percent-encoding, however often it was done; what cannot be printed becomes a space."""
    code = int(written[-2:], 16)
    return chr(code) if 32 <= code < 127 else " "


def _joint(written: str) -> str:
    """What stands between two strings of a JSON record, as the mark of a list."""
    return ": " if ":" in written else ", " if "," in written else " "


_WRITTEN: dict[str, Callable[[str], str]] = {
    "pair": lambda _: " ",
    "encoded": _decoded,
    "uuid": lambda _: "id",
    "stamp": lambda _: " ",
    "ip4": _address,
    "ip6": lambda _: "ip",
    "hash": lambda _: "hash",
    "hex": lambda _: "id",
    "blob": _blob,
    "epoch": lambda _: " ",
    "digits": lambda written: "number" if len(written) < _LONGEST_AMOUNT else "id",
    "closing": lambda _: " ",
    "structure": _joint,
    "break": lambda _: " ",
    "underscore": lambda _: " ",
    "run": lambda written: written[0],
    "space": lambda _: " ",
    "kept": lambda written: written,
}
_TIME = "1400000000"
_VALUES = {  # as `words-1` writes them, or what it erases as a pair's value
    "time": _TIME,
    "uuid": "00000000-0000-0000-0000-000000000000",
    "pointer": "id",
    "mac": "id",
    "count": "number",
    "port for anyone": "number",
    "loopback address": "loopback ip",
    "private address": "private ip",
    "public address": "public ip",
    "multicast address": "public ip",
    "reserved address": "public ip",
}
