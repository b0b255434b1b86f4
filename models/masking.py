"""An event's text to the key of the verdict cache: every character stays, but for words that are masked by kind. Pure.

Two events with one key differ in masked words alone. So whatever an attacker writes is in the key, unless a whole word
is an address, a time, an identifier or a number of a kind that the policy lets go. A mask keeps what may matter: the
class of an address, the digits of a number (its order of magnitude), the unit of an amount. Never masked are

- words in which anything else stands: paths, URLs, host names, names of users, CVE and error numbers;
- numbers of up to four digits, but behind a word that says what they count or before a unit;
- what stands behind a word that announces a code, a port, a user or a text, and hexadecimal that spells a text;
- texts in quotes that are not one such word by themselves, keys and lists of texts in JSON, commands to their end.

A release that reads `words-2` reads one value for all of a mask (`models/wording.py`), and cannot tell two such events
apart. Others can; what they say of a template has to be learnt, and is audited.
"""

import re
from collections.abc import Callable, Collection
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

from msgspec import Struct

from models.contracts.policy import MASKS, Mask

VERSION: Final = 2
"""Of the rules below; a cache that was filled by others is of no use, and the wording `words-2` is by these."""

OPEN: Final = "\x02"
CLOSE: Final = "\x03"
"""Around a mask in a key. A text that holds either has no key, so nobody can write a mask."""
LONGEST_TEXT: Final = 8192
"""In characters; a longer text has no key."""
_MOST_MASKS = 256
_MOST_DIGITS = 39  # of a number of 128 bits; more are something that somebody encoded
_HALF_A_CHARACTER = re.compile("[\ud800-\udfff]")  # nothing that is kept on a disk can hold it

# Spelt for speed: `re` looks a character up in one table where no `\s` or `\d` stands among others, and it leaps to the
# next character of a set where a pattern begins with one. `re.ASCII` everywhere: other alphabets' digits stay.
_STOPS = " \\t\\n\\r\\f\\v\"'=,;()\\[\\]{}<>"
_DAYS, _MONTHS = "Mon|Tue|Wed|Thu|Fri|Sat|Sun", "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
_CLOCK = r"\d{1,2}:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?"
_DATE = r"(?:\d{4}-\d\d-\d\d|\d{1,2}/(?:\d{1,2}|[A-Z][a-z]{2})/\d{4}|\d{4}/\d\d/\d\d)"
_CTIME = rf"(?:{_DAYS}) (?:{_MONTHS}) [ 0-9]?\d {_CLOCK} (?:[A-Z]{{3,4}} )?\d{{4}}"
_UNITS = r"ns|us|ms|s|sec|secs|seconds|min|minutes|B|bytes|kB|KB|MB|GB|KiB|MiB|GiB"
# A quote that nobody closes reaches to the end.
_IN_DOUBLE = r'[^"\\]*+(?:\\.?+[^"\\]*+)*+'
_IN_SINGLE = r"[^'\\]*+(?:(?:\\.?+|'(?=[A-Za-z]))[^'\\]*+)*+"
_LIST = rf'\s*+:\s*+\[(?:[\s,]*+"{_IN_DOUBLE}(?:"|\Z))++'  # of texts: the arguments of a command, perhaps


def _scanner(query: str) -> re.Pattern[str]:
    """Return a pattern that finds the words with a digit, and leaps over what is kept whole: no such word has a shape.

    A word stands behind a stop, or behind a key of JSON: any other colon is within a word. Quantifiers are possessive
    or bounded: a text is read once.
    """
    return re.compile(
        rf"[{_STOPS}:](?:"
        rf'(?<=")(?P<quoted>{_IN_DOUBLE})(?:"(?P<key>(?=\s*+:)(?:{_LIST})?+)?+|\Z)'
        rf"|(?<=[{_STOPS}:]')(?P<single>{_IN_SINGLE})(?:'|\Z)"
        rf"|(?:(?<!:)|(?<=\":))(?:{query}"
        rf"(?P<ctime>{_CTIME})(?![^{_STOPS}])"
        rf"|(?P<word>[^{_STOPS}0-9]*+[0-9][^{_STOPS}]*+))"
        r")",
        re.ASCII | re.DOTALL,
    )


_WORDS = _scanner("")
_WORDS_AND_QUERIES = _scanner(rf"(?P<query>[^{_STOPS}?&]*+[?&][^ \t\n\r\f\v\"'<>]*+)|")
_COMMAND = re.compile(
    r"(?:COMMAND|Command|command|CMD|Cmd|cmd|ARGS|args|ARGV|argv|argc|proctitle)(?:[ _]?+(?:LINE|Line|line))?+"
    r"(?:=|: ?+| ?+\()(?![\"'])"
)
_BYTE = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"  # 010 is eight to some
_SHAPE = re.compile(
    rf"(?P<digits>\d{{1,{_MOST_DIGITS}}})"
    rf"|(?P<ip4>{_BYTE}\.{_BYTE}\.{_BYTE}\.{_BYTE})(?::(?P<its_port>\d{{1,5}}))?"
    # With what auditd counts behind its time.
    rf"|(?P<time>{_CTIME}|{_DATE}(?:[T:]{_CLOCK})?|{_CLOCK}|1[4-9]\d{{8}}\.\d{{3,9}}(?::\d{{1,10}})?)"
    rf"|(?P<decimal>\d{{1,{_MOST_DIGITS}}}\.\d{{3,9}})"
    # Not where its bytes are all printable, or the zeros between arguments: that is a text which somebody encoded.
    r"|(?P<hex>(?=[0-9a-fA-F]*\d)(?!(?:00|[2-7][0-9a-fA-F])*\Z)[0-9a-fA-F]{8,128})"
    r"|(?P<pointer>0x[0-9a-fA-F]{9,16})"  # a code of an error or a status has up to eight
    r"|(?P<uuid>[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})"
    r"|(?P<mac>[0-9a-fA-F]{2}(?:[:-][0-9a-fA-F]{2}){5})"
    r"|(?P<ip6>[0-9a-fA-F]{0,4}(?::[0-9a-fA-F]{0,4}){2,7})"
    rf"|(?P<amount>\d{{1,{_MOST_DIGITS}}}(?:\.\d{{1,9}})?(?P<unit>{_UNITS}))",
    re.ASCII,
)
_MASK_OF: dict[str, Mask] = {
    "ip4": "address",
    "its_port": "address",
    "ip6": "address",
    "time": "time",
    "decimal": "number",
    "hex": "identifier",
    "pointer": "identifier",
    "uuid": "identifier",
    "mac": "identifier",
    "amount": "amount",
}
_IP4_CLASS = re.compile(
    r"(?P<loopback>127\.)|(?P<private>10\.|192\.168\.|169\.254\.|172\.(?:1[6-9]|2\d|3[01])\.)"
    r"|(?P<multicast>2(?:2[4-9]|3\d)\.)|(?P<reserved>2[45]\d\.|0\.)",
    re.ASCII,
)
_EPOCH = re.compile(r"1[4-9]\d{8}(?:\d{3}|\d{6}|\d{9})?", re.ASCII)  # since 2014, in seconds or finer
_UNIT_AFTER = re.compile(rf" (?:{_UNITS})(?![^{_STOPS}.:])", re.ASCII)

# What stands right before a short number that only counts: no codes, levels or states, and no number of a user.
_COUNTERS = (
    *("pid", "ppid", "tid", "process", "thread", "child", "worker", "slot"),
    *("seq", "sequence", "conn", "connection", "uptime"),
)
_SOURCE_PORTS = ("sport", "spt", "srcport", "src_port", "source_port", "source.port", "sourceport")
# `from 203.0.113.9 port 51234`, but not where the address is whither.
_SOURCE_PORT = re.compile(r"\b(?:from|by) (?:(?! to | on |->).)*[0-9a-f] port\Z", re.ASCII | re.DOTALL)
_SOURCES = ("from", "by", "src", "source", "client", "client_ip", "peer", "remote", "rhost", "src_ip", "source.ip")
# Ends of words behind which stands what happened, who did it, or what somebody wrote.
_TELLING = (
    *("code", "error", "errno", "status", "state", "result", "reason", "type", "task", "level", "level_value"),
    *("rule", "ruleid", "rule_id", "rule id", 'rule":{"id', "[id", "signatureid", "signature_id", "signature id"),
    *('signature":{"id', " sid", '"sid', "eventid", "event_id", "event id", 'event":{"id', "logid", "log_id", "exit"),
    *("msgid", "flags", "mode", "mask", "permissions", "effective", "permitted", "version", "build", "revision"),
    *("port", "spt", "dpt", "user", "name", "account", "acct", "login", "role", "roleid"),
    *("data", "payload", "body", "message", "msg", "text", "content", "query", "subject", "title", "agent"),
    *("file", "path", "uri", "url", "exe", "comm", "cwd"),
)
_WHOM = " for"  # `Failed password for 123456`, but not `for 123456 seconds`
_WHOSE_NUMBER = (_WHOM, "uid", "gid")  # and not of what `uuid` and `guid` announce
_BETWEEN = " \t\r\n\v\f\"'=:[(>"  # a word and what it announces
_WHOLE_WORD = re.compile(r"[a-z_.-]++\Z")
_ENDS = ".:!"  # marks behind a word that are not the word's
_LOOK_BACK = 80  # characters, of which an address of version 6 may be half
_SHORTEST_NUMBER = 5  # digits; codes, levels and event numbers have fewer
_LONGEST_PORT = 5  # digits
_FIRST_FOR_ANYONE = 32_768  # of the ports: Linux gives them to who asks for any (ip_local_port_range)
# The clouds' metadata services, nobody and everybody. Never bound to.
_SPECIAL = frozenset(
    (
        *("169.254.169.254", "fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "168.63.129.16", "192.0.0.192"),
        *("0.0.0.0", "255.255.255.255"),  # noqa: S104
    )
)

Span = tuple[int, int]


class Masked(Struct, frozen=True, gc=False):
    """A key, and where in the text its masks stand, in order."""

    key: str
    spans: tuple[Span, ...]


class Masking:
    """The rules in force: which kinds are masked, and which addresses stay as they are."""

    def __init__(self, kinds: Collection[Mask] = MASKS, known_addresses: Collection[str] = ()) -> None:
        self._kinds = frozenset(kinds)
        self._known = _SPECIAL.union(map(_plainly, known_addresses))

    def mask(self, text: str) -> Masked | None:
        """Return the key of a text, in time that grows with its length alone; None for a text that has none."""
        if len(text) > LONGEST_TEXT or OPEN in text or CLOSE in text:
            return None
        if not text.isascii() and _HALF_A_CHARACTER.search(text):
            return None
        text = " " + text  # so that the first word stands behind a stop, too
        command = _COMMAND.search(text)
        end = command.start() if command else len(text)
        scanner = _WORDS_AND_QUERIES if "?" in text or "&" in text else _WORDS  # few texts have one, and it takes time
        pieces: list[str] = []
        spans: list[Span] = []
        done = 1
        for found in scanner.finditer(text, 0, end):
            group = found.lastgroup or ""
            begin = found.start(group)
            word = found[group].rstrip(_ENDS)
            shape = _SHAPE.fullmatch(word)
            if shape is None:
                continue
            port = shape["its_port"]
            if port:  # two words, and one may be masked without the other
                word = shape["ip4"]
            before = text[max(0, begin - _LOOK_BACK) : begin].rstrip(_BETWEEN).lower()
            if not before and begin > _LOOK_BACK:  # nobody knows what announces it
                continue
            mask = self._mask_of(shape, word, before, text, begin + len(word))
            if mask:
                pieces += (text[done:begin], OPEN, mask, CLOSE)
                done = begin + len(word)
                spans.append((begin - 1, done - 1))
            mask = self._port_of(port) if port and _last_word(before) in _SOURCES else ""
            if mask:
                begin += len(word) + 1
                pieces += (text[done:begin], OPEN, mask, CLOSE)
                done = begin + len(port)
                spans.append((begin - 1, done - 1))
            if len(spans) > _MOST_MASKS:
                return None
        pieces.append(text[done:])
        return Masked("".join(pieces), tuple(spans))

    def _mask_of(self, shape: re.Match[str], word: str, before: str, text: str, end: int) -> str:
        """Return what stands for a word in the key; empty where the word stays."""
        kind = shape.lastgroup or ""
        if kind == "digits":
            return self._number(word, before, text, end)
        if _MASK_OF[kind] not in self._kinds:
            return ""
        if kind == "time":
            return kind
        if before.endswith(_TELLING) or (kind == "hex" and before.endswith(_WHOM)):
            return ""
        if kind == "ip6":
            return self._class_of_ip6(word)
        return "" if word in self._known else _NAMES.get(kind, _identifier)(kind, word)

    def _port_of(self, digits: str) -> str:
        return _port(digits) if "port" in self._kinds else ""

    def _class_of_ip6(self, written: str) -> str:
        try:
            address = IPv6Address(written)
        except ValueError:
            return ""
        return "" if str(address) in self._known else _class_of_ip6(address)

    def _number(self, digits: str, before: str, text: str, end: int) -> str:
        """Return what stands for digits alone, by how many they are and what stands around them."""
        length = len(digits)
        if length < _SHORTEST_NUMBER:
            return "" if length == 1 else self._short_number(length, before, text, end)
        if before.endswith(_TELLING):
            is_source = _last_word(before) in _SOURCE_PORTS or _SOURCE_PORT.search(before)
            return self._port_of(digits) if length == _LONGEST_PORT and is_source else ""
        if text.startswith(":", end) or (before.endswith(_WHOSE_NUMBER) and not _UNIT_AFTER.match(text, end)):
            return ""  # `MSSQLSERVER 15457: …` is an event's number
        if _EPOCH.fullmatch(digits):
            return _epoch(length) if "time" in self._kinds else ""
        return f"{length} digits" if "number" in self._kinds else ""

    def _short_number(self, length: int, before: str, text: str, end: int) -> str:
        kinds = self._kinds
        if before.endswith(_COUNTERS) and _last_word(before) in _COUNTERS:
            return "count" if "counter" in kinds else ""
        is_amount = "amount" in kinds and _UNIT_AFTER.match(text, end) and not before.endswith(_TELLING)
        return f"{length} digits" if is_amount else ""


def _plainly(address: str) -> str:
    """Return an address as the shortest of the ways in which it is written."""
    try:
        return str(ip_address(address))
    except ValueError:
        return address


def _last_word(before: str) -> str:
    found = _WHOLE_WORD.search(before)
    return found[0] if found else ""


def _port(digits: str) -> str:
    return "port for anyone" if _FIRST_FOR_ANYONE <= int(digits) <= 65_535 else ""


def _epoch(length: int) -> str:
    return "time" if length == 10 else f"time of {length} digits"  # or a number, but then of the same magnitude


def _identifier(kind: str, word: str) -> str:
    return f"{kind} of {len(word)}"  # a hash of another length is a hash of another kind


def _magnitude(kind: str, word: str) -> str:
    unit = word.lstrip("0123456789.") or kind
    return f"{len(word.partition('.')[0].removesuffix(unit))} digits of {unit}"


def _class_of_ip4(_kind: str, written: str) -> str:
    found = _IP4_CLASS.match(written)
    return f"{found.lastgroup if found else 'public'} address"


_OF_IP6 = tuple(
    (ip_network(network), name)
    for network, name in (
        # They hold an IPv4 address, which may be a special one.
        ("2001::/32", ""),
        ("2002::/16", ""),
        ("2000::/3", "public address"),
        ("fc00::/7", "private address"),
        ("fe80::/10", "private address"),
        ("ff00::/8", "multicast address"),
        ("::1/128", "loopback address"),
    )
)


def _class_of_ip6(address: IPv6Address) -> str:
    return next((name for network, name in _OF_IP6 if address in network), "")


_NAMES: dict[str, Callable[[str, str], str]] = {
    "ip4": _class_of_ip4,
    "its_port": _class_of_ip4,
    "decimal": _magnitude,
    "amount": _magnitude,
}
