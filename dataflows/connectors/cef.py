"""Verdicts in the Common Event Format of ArcSight, version 0, behind a syslog header (RFC 3164). Pure.

`<106>Jan 31 23:59:59 edge-7 CEF:0|Headwater|Headwater|1|critical|critical event|10|rt=… externalId=… …`

The header's time is in UTC; `rt` is the time of receipt and `start` the sender's, in milliseconds since 1970. The
event's own host is `dvchost`, its program `deviceProcessName`, the route `act`, the label `cat`, the text `msg`; what
has no key of its own is in the custom ones, each with its label.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache

import msgspec
from msgspec import Struct, field

from dataflows.connectors import rfc5424
from models.contracts.verdict import Verdict

_FACILITY = 13  # log audit
SEVERITIES: Mapping[str, int] = {"critical": 10, "suspicious": 6}  # by label; 0 … 10, the worst
_LOW = 2  # every other label
_LINE_BREAKS = re.compile(r"[\n\r\u2028\u2029]+")
_OTHER_CONTROLS = re.compile(r"[\x00-\x09\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029]")
_NOT_PRINTABLE = re.compile(r"[^\x21-\x7e]")
_HEADER_ESCAPES = str.maketrans({"\\": "\\\\", "|": "\\|"})
_EXTENSION_ESCAPES = str.maketrans({"\\": "\\\\", "=": "\\=", "\n": "\\n", "\r": "\\r"})


class Cef(Struct, frozen=True, kw_only=True):
    """How verdicts are written."""

    gateway: str  # for verdicts that do not say which gateway saw the event
    severities: Mapping[str, int] = field(default_factory=lambda: SEVERITIES)
    syslog_severities: Mapping[str, int] = field(default_factory=lambda: rfc5424.SEVERITIES)  # of the syslog header
    max_bytes: int = 8192  # the end of the text goes first


def message(verdict: Verdict, style: Cef) -> bytes:
    """Return one message, without framing."""
    head = _head(verdict, style)
    text = _extension(verdict.text).encode("utf-8", "replace")
    room = style.max_bytes - len(head)
    if len(text) > room:
        # An escape that is cut in two would take what follows it with it; here nothing follows.
        text = text[: max(0, room)].decode("utf-8", "ignore").encode()
        text = text[: len(text) - (len(text) - len(text.rstrip(b"\\"))) % 2]
    return head + text


def _head(verdict: Verdict, style: Cef) -> bytes:
    header = "|".join(
        (
            "CEF:0",
            "Headwater",
            "Headwater",
            "1",
            _header(verdict.label),
            _header(f"{verdict.label} event"),
            str(style.severities.get(verdict.label, _LOW)),
        )
    )
    extension = {
        "rt": str(verdict.received_at_ms),
        "start": None if verdict.occurred_at_ms is None else str(verdict.occurred_at_ms),
        "externalId": verdict.id,
        "dvchost": verdict.host,
        "deviceProcessName": verdict.app,
        "act": verdict.route,
        "cat": verdict.label,
        "cfp1Label": "confidence",
        "cfp1": f"{verdict.confidence:.4f}",
        "cfp2Label": "labelMass",
        "cfp2": f"{verdict.label_mass:.4f}",
        "cn1Label": "policy",
        "cn1": str(verdict.policy),
        "cs1Label": "release",
        "cs1": verdict.release,
        "cs2Label": "source",
        "cs2": verdict.source,
        "cs3Label": "fields" if verdict.fields else None,
        "cs3": msgspec.json.encode(verdict.fields).decode() if verdict.fields else None,
        "cs4Label": None if verdict.topic is None else "topic",
        "cs4": verdict.topic,
        "cs5Label": None if verdict.cached is None else "cached",
        "cs5": verdict.cached,
        "cn2Label": "revision" if verdict.revision else None,
        "cn2": str(verdict.revision) if verdict.revision else None,
    }
    pairs = " ".join(f"{key}={_extension(value)}" for key, value in extension.items() if value is not None)
    host = _NOT_PRINTABLE.sub("_", verdict.gateway or style.gateway)[:255] or "-"
    severity = style.syslog_severities.get(verdict.label, rfc5424.INFORMATIONAL)
    syslog = f"<{_FACILITY * 8 + severity}>{_stamp(verdict.received_at_ms // 1000)} {host}"
    return f"{syslog} {header}|{pairs} msg=".encode("utf-8", "replace")


def _header(value: str) -> str:
    return _OTHER_CONTROLS.sub(" ", _LINE_BREAKS.sub(" ", value)).translate(_HEADER_ESCAPES)


def _extension(value: str) -> str:
    return _OTHER_CONTROLS.sub(" ", value).translate(_EXTENSION_ESCAPES)


@lru_cache(maxsize=256)
def _stamp(seconds: int) -> str:
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment:%b} {moment.day:2} {moment:%H:%M:%S}"
