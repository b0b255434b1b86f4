"""Time stamp, host name and process id off the front of a line, so that a model reads only what happened.

Read are RFC 5424, RFC 3164 and what vendors make of it (no priority, a year, ISO stamps, Cisco's sequence numbers),
Apache's and nginx's error logs, and lines of applications that begin with an ISO stamp. All else, JSON included, is
body as it stands, and so is every part that is not recognised.

Stamps without a zone, and named zones, which are ambiguous, are read as UTC; one without a year gets the latest year
that puts it at most a week ahead of now. Work is linear in the line.
"""

import re
from collections.abc import Iterable
from datetime import date, timedelta
from functools import lru_cache

from msgspec import Struct
from msgspec.structs import replace


class Header(Struct, frozen=True, gc=False):
    """What stood in front of a message, and the message with its program: `sshd: Failed password for …`."""

    body: str  # empty only where the line is
    occurred_at_ms: int | None = None
    host: str | None = None
    app: str | None = None
    process_id: str | None = None
    severity: int | None = None  # RFC 5424 section 6.2.1: 0 emergency … 7 debug


_EPOCH = date(1970, 1, 1)
_AHEAD_DAYS = 7
_DAY_MS = 86_400_000
_ENDS = "\r\n\t \0"  # what framing leaves at the end of a line
_MONTHS = {"Jan": 1, "Feb": 2, "Mar": 3, "Apr": 4, "May": 5, "Jun": 6}
_MONTHS |= {"Jul": 7, "Aug": 8, "Sep": 9, "Oct": 10, "Nov": 11, "Dec": 12}
_ZONES = "UTC|GMT|WES?T|CES?T|EES?T|MSK|BST|IST|JST|KST|SGT|HKT|[ECMP][SD]T|AK[SD]T|HST|A[EC][SD]T|AWST|NZ[SD]T"

_LEVELS = {"emerg": 0, "alert": 1, "crit": 2, "error": 3, "warn": 4, "notice": 5, "info": 6, "debug": 7}
# A word that stands where a host name could: `2026-01-02T03:04:05Z WARN pool: exhausted` has no host.
_NOT_HOSTS = re.compile(r"TRACE|DEBUG|VERBOSE|INFO|NOTICE|WARN(ING)?|ERR(OR)?|SEVERE|CRIT(ICAL)?|FATAL|ALERT|PANIC|LOG")

# Spelt for speed: `re` looks a character up in one table where no `\s` stands among others, `(?:…|)` costs less than
# `(?:…)?`, and so does what never goes back.
_SPACE = r" \t\n\r\f\v"
_PRIORITY = r"<([1-9]?\d|0\d\d|1[0-8]\d|19[01])>"
_HOST = rf"[^{_SPACE}\[\]]{{0,254}}[^{_SPACE}\[\]:]"  # IPv6 too; what ends in a colon is a program
_PROGRAM = rf"([^{_SPACE}:\[\]]{{1,64}}+)(?:\[(\d{{1,10}}+)\]|)"
_CLOCK = r"\d\d:\d\d:\d\d"
_ISO = rf"(\d{{4}}-\d\d-\d\dT{_CLOCK})(?:\.(\d{{1,9}}))?(Z|[+-]\d\d:\d\d)?"

_PRIORITY_ALONE = re.compile(_PRIORITY, re.ASCII)
_5424 = re.compile(
    rf"[1-9]\d? (?:-|{_ISO}) (\S{{1,255}}) (\S{{1,48}}) (\S{{1,128}}) (\S{{1,32}}) (?=-|\[)",
    re.ASCII,
)
_STRUCTURED_DATA = re.compile(r'-|(?:\[(?:[^"\]\\]|\\.|"(?:[^"\\]|\\.)*+")*+\])++', re.DOTALL)
# It says how good the stamp is, which went already; util-linux's logger adds it to every message.
_TIME_QUALITY = re.compile(r"\[timeQuality [^\]]{0,200}\]")
_STAMP = re.compile(rf"([A-Z][a-z][a-z]) {{1,2}}(\d{{1,2}}) ({_CLOCK})", re.ASCII)
# Here a stamp is so many characters; what they say is read once for all lines that share them.
_3164 = re.compile(rf"(?:{_PRIORITY}|)(....[ 1-3]?.{{10}}+) ({_HOST}) {_PROGRAM}(:.*+)", re.ASCII | re.DOTALL)
_3164_VENDOR = re.compile(
    rf"(?:\d{{1,10}}: (?:({_HOST}): )?)?[*.:]?"
    rf"(?:([A-Z][a-z][a-z]) {{1,2}}(\d{{1,2}})(?: (\d{{4}}))? ({_CLOCK})(?:\.(\d{{1,9}}))?(?: (?:{_ZONES}))?"
    r"(?: (\d{4}))?"
    rf"|(?:{_CLOCK}|\d{{1,3}}[ywd]\d{{1,2}}[wdh])(?=:))"  # time since boot, as Cisco writes it without a clock
    rf"(?: ?: | +|$)",
    re.ASCII,
)
_ISO_STAMP = re.compile(
    r"(\d{4}[-/]\d\d[-/]\d\d)([T ])(\d\d:\d\d:\d\d)(?:[.,](\d{1,9}))? ?"
    rf"(Z|[+-]\d\d:?\d\d|(?:{_ZONES}))?(?: *: | +|$)",
    re.ASCII,
)
_HOST_AND_PROGRAM = re.compile(rf"({_HOST}) (?:: )?{_PROGRAM}(?=:)", re.ASCII)
_HOST_ALONE = re.compile(r"\[?([A-Za-z0-9_.:%-]{0,254}[A-Za-z0-9_])\]? (?:: )?", re.ASCII)
_PROGRAM_ALONE = re.compile(rf"{_PROGRAM}(?=:)", re.ASCII)
_NUMBERED_PROGRAM = re.compile(r"([A-Za-z_][\w./()@-]{0,63})\[(\d{1,10})\](?=: )", re.ASCII)
_LAUNCHD = re.compile(r"([^\s:\[\]]{1,64})\[(\d{1,10})\](?= \()", re.ASCII)  # `launchd[1] (com.example.agent): …`
_APACHE = re.compile(
    r"\[[A-Z][a-z][a-z] (.{14,16})(?:\.(\d{1,9}+)|) (\d{4})\] "
    r"(?:(\[(?:[\w.-]{1,64}:|)(\w{1,16})\] )|)(?:\[pid (\d{1,10})(?::tid \d{1,20}|)\] |)(.*+)",
    re.ASCII | re.DOTALL,
)
_NGINX = re.compile(r"(\[(\w{1,16})\] )(\d{1,10})#\d{1,10}: ", re.ASCII)
_BRACKETED_ID = re.compile(r"\[(\d{1,10})\] ", re.ASCII)  # PostgreSQL's


def split(line: str, now_ms: int) -> Header:
    """Return what stands in front of the message, and the message. Any string is accepted."""
    return _split(line, now_ms // _DAY_MS)


def split_all(lines: Iterable[str], now_ms: int) -> list[Header]:
    """Split lines that came together, each as `split` would."""
    today = now_ms // _DAY_MS
    return [_split(line, today) for line in lines]


def _split(line: str, today: int) -> Header:
    text = line.rstrip(_ENDS)
    # Most lines are of this form, so it is tried first, and one match says all.
    if found := _3164.match(text):
        priority, stamp, host, app, process_id, message = found.groups()
        occurred_at_ms = _second_ms(stamp, None, today)
        if occurred_at_ms is not None:
            severity = None if priority is None else int(priority) & 7
            return Header(app + message, occurred_at_ms, host, app, process_id, severity)
    at, severity, header = 0, None, None
    first = text[:1]
    if first == "<" and (found := _PRIORITY_ALONE.match(text)):
        at, severity = found.end(), int(found[1]) & 7
        first = text[at : at + 1]
    if first == "[":
        header = _split_apache(text, at, severity)
    elif first == "{":
        return Header(text[at:], severity=severity)
    elif first.isdecimal():
        header = _split_5424(text, at, severity) or _split_iso(text, at, severity)
    header = header or _split_vendor(text, at, severity, today) or _split_stampless(text, at, severity)
    return header if header.body else replace(header, body=text or line)


def _split_5424(text: str, at: int, severity: int | None) -> Header | None:
    found = _5424.match(text, at)
    if found is None:
        return None
    second, fraction, zone, host, app, process_id, message_id = found.groups()
    occurred_at_ms = None
    if second is not None and (occurred_at_ms := _iso_ms(second, fraction, zone)) is None:
        return None
    data = _STRUCTURED_DATA.match(text, found.end())
    # Structured data that does not close is text like any other.
    rest = text[data.end() :] if data else text[found.end() :]
    rest = rest.lstrip().removeprefix("\ufeff").lstrip()
    if data and data.end() - data.start() > 1:
        rest = f"{_TIME_QUALITY.sub('', data.group())} {rest}".strip()
    if message_id != "-":
        rest = f"{message_id} {rest}".rstrip()
    return Header(
        rest if app == "-" else f"{app}: {rest}".rstrip(),
        occurred_at_ms,
        None if host == "-" else host,
        None if app == "-" else app,
        None if process_id == "-" else process_id,
        severity,
    )


def _split_iso(text: str, at: int, severity: int | None) -> Header | None:
    found = _ISO_STAMP.match(text, at)
    if found is None:
        return None
    day, between, clock, fraction, zone = found.groups()
    occurred_at_ms = _iso_ms(f"{day.replace('/', '-')}T{clock}", fraction, zone)
    if occurred_at_ms is None:
        return None
    at = found.end()
    # Applications write the blank, syslog relays the T: with the blank, only a process id tells a host from a word.
    named = _HOST_AND_PROGRAM.match(text, at)
    if named and (between == "T" or named[3] or severity is not None) and not _NOT_HOSTS.fullmatch(named[1]):
        host, app, process_id = named.groups()
        return Header(app + text[named.end() :], occurred_at_ms, host, app, process_id, severity)
    if nginx := _NGINX.match(text, at):
        level, word, process_id = nginx.groups()
        severity = _LEVELS.get(word, severity)
        return Header(level + text[nginx.end() :], occurred_at_ms, None, None, process_id, severity)
    if numbered := _BRACKETED_ID.match(text, at):
        return Header(text[numbered.end() :], occurred_at_ms, None, None, numbered[1], severity)
    return _split_program(text, at, occurred_at_ms, None, severity)


def _split_apache(text: str, at: int, severity: int | None) -> Header | None:
    found = _APACHE.match(text, at)
    if found is None:
        return None
    stamp, fraction, year, level, word, process_id, message = found.groups()
    second_ms = _second_ms(stamp, year, 0)
    if second_ms is None:
        return None
    body = message if level is None else level + message
    return Header(body, second_ms + _fraction_ms(fraction), None, None, process_id, _LEVELS.get(word, severity))


def _split_vendor(text: str, at: int, severity: int | None, today: int) -> Header | None:
    found = _3164_VENDOR.match(text, at)
    if found is None:
        return None
    host, month, day, year, clock, fraction, year_after = found.groups()
    occurred_at_ms = None
    if month is not None:
        second_ms = _second_ms(f"{month} {day} {clock}", year or year_after, today)
        if second_ms is None:
            return None
        occurred_at_ms = second_ms + _fraction_ms(fraction)
    at = found.end()
    if host is None and text[at : at + 1] != "%" and _PROGRAM_ALONE.match(text, at) is None:
        # RFC 3164 section 4.1.2: what follows the stamp is the host, unless it ends like a program.
        named = _HOST_ALONE.match(text, at)
        if named:
            host, at = named[1], named.end()
    return _split_program(text, at, occurred_at_ms, host, severity)


def _split_program(text: str, at: int, occurred_at_ms: int | None, host: str | None, severity: int | None) -> Header:
    found = _PROGRAM_ALONE.match(text, at) or _LAUNCHD.match(text, at)
    if found is None:
        return Header(text[at:].lstrip(), occurred_at_ms, host, None, None, severity)
    app, process_id = found.groups()
    return Header(app + text[found.end() :], occurred_at_ms, host, app, process_id, severity)


def _split_stampless(text: str, at: int, severity: int | None) -> Header:
    # Without a priority, only a process id makes a first word a program: `Error: …` is not one.
    found = (_PROGRAM_ALONE if severity is not None else _NUMBERED_PROGRAM).match(text, at)
    if found is None:
        return Header(text[at:], severity=severity)
    app, process_id = found.groups()
    return Header(app + text[found.end() :], app=app, process_id=process_id, severity=severity)


@lru_cache(maxsize=4096)  # lines come in the order of their stamps, many to a second
def _second_ms(stamp: str, year: str | None, today: int) -> int | None:
    found = _STAMP.fullmatch(stamp)
    if found is None:
        return None
    month, day, clock = found.groups()
    midnight_ms, since_ms = _midnight_ms(month, day, year, today), _clock_ms(clock)
    return None if midnight_ms is None or since_ms is None else midnight_ms + since_ms


@lru_cache(maxsize=1024)
def _midnight_ms(month: str, day: str, year: str | None, today: int) -> int | None:
    number = _MONTHS.get(month)
    if number is None:
        return None
    this_year = (_EPOCH + timedelta(days=today)).year
    days = []
    # Four years either way, so that 29 February finds one.
    for candidate in (int(year),) if year else range(this_year - 4, this_year + 5):
        try:
            days.append((date(candidate, number, int(day)) - _EPOCH).days)
        except ValueError:
            continue
    if not days:
        return None
    # An event has happened: it lies ahead only where a clock is wrong. 31 December seen in January is last year's.
    past = [found for found in days if found <= today + _AHEAD_DAYS]
    found = days[0] if year else max(past, default=days[0])
    return found * _DAY_MS if found >= 0 else None


def _clock_ms(clock: str) -> int | None:
    hours, minutes, seconds = int(clock[:2]), int(clock[3:5]), int(clock[6:8])
    if hours > 23 or minutes > 59 or seconds > 60:  # 60 is a leap second
        return None
    return ((hours * 60 + minutes) * 60 + seconds) * 1000


def _fraction_ms(fraction: str | None) -> int:
    return 0 if fraction is None else int((fraction + "00")[:3])


def _iso_ms(second: str, fraction: str | None, zone: str | None) -> int | None:
    since_ms = _iso_second_ms(second)
    if since_ms is None:
        return None
    since_ms += _fraction_ms(fraction)
    if zone is not None and zone[0] in "+-":
        since_ms -= _zone_ms(zone)
    return since_ms if since_ms >= 0 else None


@lru_cache(maxsize=4096)
def _iso_second_ms(second: str) -> int | None:
    try:
        days = (date.fromisoformat(second[:10]) - _EPOCH).days
    except ValueError:
        return None
    since_ms = _clock_ms(second[11:])
    return None if since_ms is None else days * _DAY_MS + since_ms


@lru_cache(maxsize=64)
def _zone_ms(zone: str) -> int:
    minutes = int(zone[1:3]) * 60 + int(zone[-2:])
    return minutes * 60_000 if zone[0] == "+" else -minutes * 60_000
