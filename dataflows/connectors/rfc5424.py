"""Verdicts as syslog messages with structured data (RFC 5424). Pure.

`<106>1 2026-01-31T23:59:59.123Z edge-7 headwater - critical [verdict@32473 id="…" label="critical" …] the event's text`

The one element of structured data has the parameters `id`, `label`, `confidence`, `mass`, `route`, `release`, `policy`
and `source`; where there is something to say `topic`, `host`, `app` and `fields` (as JSON), and `truncated`, `replaced`
where they are true. The host name of the message is the gateway's, its time that of receipt, its MSGID the label.

32473 is the enterprise number that RFC 5612 sets aside for examples: an organisation with its own gives that.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache

import msgspec
from msgspec import Struct, field

from models.contracts.verdict import Verdict

_FACILITY = 13  # log audit
SEVERITIES: Mapping[str, int] = {"critical": 2, "suspicious": 4}  # by label; section 6.2.1: 0 emergency … 7 debug
INFORMATIONAL = 6  # every other label
_NOT_PRINTABLE = re.compile(r"[^\x21-\x7e]")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_ESCAPES = str.maketrans({'"': '\\"', "\\": "\\\\", "]": "\\]"})  # section 6.3.3


class Rfc5424(Struct, frozen=True, kw_only=True):
    """How verdicts are written."""

    gateway: str
    enterprise: int = 32473
    severities: Mapping[str, int] = field(default_factory=lambda: SEVERITIES)
    max_bytes: int = 8192  # what RFC 5425 asks of a receiver; the end of the text goes first


def message(verdict: Verdict, style: Rfc5424) -> bytes:
    """Return one message, without framing.

    Control characters in the text become blanks: the text is a stranger's, and collectors write messages to lines.
    """
    text = _CONTROLS.sub(" ", verdict.text).encode("utf-8", "replace")
    head = _head(verdict, style, truncated=verdict.truncated)
    if len(head) + len(text) > style.max_bytes:
        head = _head(verdict, style, truncated=True)
        text = text[: max(0, style.max_bytes - len(head))].decode("utf-8", "ignore").encode()
    return head + text


def timestamp(millis: int) -> str:
    """Return a time in UTC as RFC 5424 section 6.2.3 writes it."""
    return f"{_second(millis // 1000)}.{millis % 1000:03}Z"


def _head(verdict: Verdict, style: Rfc5424, *, truncated: bool) -> bytes:
    severity = style.severities.get(verdict.label, INFORMATIONAL)
    parameters = {
        "id": verdict.id,
        "label": verdict.label,
        "confidence": f"{verdict.confidence:.4f}",
        "mass": f"{verdict.label_mass:.4f}",
        "route": verdict.route,
        "release": verdict.release,
        "policy": str(verdict.policy),
        "source": verdict.source,
        "topic": verdict.topic,
        "host": verdict.host,
        "app": verdict.app,
        "fields": msgspec.json.encode(verdict.fields).decode() if verdict.fields else None,
        "truncated": "true" if truncated else None,
        "replaced": "true" if verdict.replaced else None,
        "cached": verdict.cached,
        "revision": str(verdict.revision) if verdict.revision else None,
    }
    data = "".join(f' {name}="{_value(value)}"' for name, value in parameters.items() if value is not None)
    return (
        f"<{_FACILITY * 8 + severity}>1 {timestamp(verdict.received_at_ms)} {_word(style.gateway, 255)} headwater - "
        f"{_word(verdict.label, 32)} [verdict@{style.enterprise}{data}] "
    ).encode("utf-8", "replace")


def _value(value: str) -> str:
    return _CONTROLS.sub(" ", value).translate(_ESCAPES)


def _word(text: str, most: int) -> str:
    """Return a header field: printable ASCII without blanks, or `-` for nothing."""
    return _NOT_PRINTABLE.sub("_", text)[:most] or "-"


@lru_cache(maxsize=256)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
