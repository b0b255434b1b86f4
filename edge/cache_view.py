"""What a person sees of the verdict cache: templates as a table, as lines or as JSON, and what answers an event. Pure.

Templates and events hold text of strangers: all that is shown of it went through `printable`.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import datetime

import msgspec
from msgspec.structs import asdict
from rich.table import Table
from rich.text import Text

from edge.cache_answers import Explanation, Template
from edge.view import printable
from models.masking import CLOSE, LONGEST_TEXT, OPEN, Masked

_MASK = re.compile(f"{OPEN}([^{CLOSE}]*){CLOSE}")
_BRACKETS = str.maketrans("⟨⟩", "··")  # they are around masks, and around nothing else
_STYLES = {"answers": "green", "learning": "yellow", "doubtful": "yellow", "expired": "dim", "refused": "red"}
_HEADINGS = ("name", "label", "sure", "hits", "age", "audits", "last", "wrong ≤", "state")
_FIGURES = {"sure", "hits", "age", "audits", "last", "wrong ≤"}
_FIELDS = ("name", "state", "label", "confidence", "hits", "age_s", "audits", "audited_s_ago", "bound", "template")


def shown(key: str) -> str:
    """Return a template with its masks as `⟨public address⟩`; nothing that a stranger wrote looks like one."""
    pieces = _MASK.split(key)  # a mask's kind between each two
    pieces[::2] = [printable(piece).translate(_BRACKETS) for piece in pieces[::2]]
    pieces[1::2] = [f"⟨{kind}⟩" for kind in pieces[1::2]]
    return "".join(pieces)


def json_line(template: Template) -> bytes:
    """Return a template as one line of JSON."""
    record = asdict(template)
    record["template"] = shown(record.pop("key"))
    return msgspec.json.encode(record) + b"\n"


def fields(templates: Sequence[Template], now: float) -> Iterator[tuple[str, ...]]:
    """Yield the names of the fields, and then those of each template; none holds a tab or a line end."""
    yield _FIELDS
    for each in templates:
        yield (
            each.name,
            _state(each),
            each.label,
            "" if each.confidence is None else f"{each.confidence:.4f}",
            str(each.hits),
            str(_seconds_since(each.since, now)),
            str(each.audits),
            "" if each.audited_at is None else str(_seconds_since(each.audited_at, now)),
            "" if each.bound is None else f"{each.bound:.6f}",
            shown(each.key),
        )


def table(templates: Sequence[Template], now: float) -> Table:
    """Return two lines for each template, figures above and the text below: it would leave them no room beside it."""
    rows = [_cells(each, now) for each in templates]
    widths = [max(map(len, column)) for column in zip(_HEADINGS, *rows, strict=True)]
    lines = Table.grid()
    lines.add_row(_line([Text(heading, "bold") for heading in _HEADINGS], widths))
    for each, row in zip(templates, rows, strict=True):
        style = _STYLES[each.state]
        lines.add_row(_line([*map(Text, row[:-1]), Text(row[-1], style)], widths))
        lines.add_row(Text(f"  {shown(each.key)}", "dim", no_wrap=True, overflow="ellipsis"))
    return lines


def masks(masked: Masked, body: str) -> list[tuple[str, str]]:
    """Return the kind of each mask and the word behind it."""
    return [(kind, body[begin:end]) for kind, (begin, end) in zip(_MASK.findall(masked.key), masked.spans, strict=True)]


def answer(found: Explanation, body: str, now: float) -> tuple[str, ...]:
    """Return which entry answers an event, or why none does, in lines."""
    known, why_not = found.template, _why_not(found, body)
    if known is None or why_not:
        return (f"none: {why_not}; the model is asked",)
    entry = f"{known.name}, {_since(known)}: {known.label}, confidence {known.confidence:.2f}"
    if known.state == "learning":
        return (entry, f"this very event only, until {known.wanted} different ones were answered alike")
    last = "" if known.audited_at is None else f", the last {_age(known.audited_at, now)} ago"
    rate, bound = _percent(known.audit_rate or 0.0), _percent(known.bound or 0.0)
    return (
        entry,
        f"hits: {known.hits}; audits, which all agreed: {known.audits}{last}",
        f"audited: {rate} of its hits; wrong: at most {bound} of them, at 95 % confidence",
    )


def _cells(each: Template, now: float) -> tuple[str, ...]:
    return (
        each.name,
        each.label,
        "" if each.confidence is None else f"{each.confidence:.2f}",
        str(each.hits),
        _age(each.since, now),
        str(each.audits),
        "" if each.audited_at is None else _age(each.audited_at, now),
        "" if each.bound is None else _percent(each.bound),
        _state(each),
    )


def _line(cells: Sequence[Text], widths: Sequence[int]) -> Table:
    line = Table.grid(padding=(0, 2, 0, 0))
    for heading, width in zip(_HEADINGS[:-1], widths, strict=False):
        line.add_column(width=width, justify="right" if heading in _FIGURES else "left")
    line.add_column()
    line.add_row(*cells)
    return line


def _state(each: Template) -> str:
    match each.state:
        case "refused":
            return f"refused: {each.reason}"
        case "learning":
            return f"learning {each.witnesses} of {each.wanted}"
        case "doubtful":
            return "doubtful: the model is asked, for it is not accepted, and the policy caches only what is"
        case state:
            return state


def _why_not(found: Explanation, body: str) -> str:
    """Return why no entry answers; nothing where one does."""
    known = found.template
    why = ""
    if not found.enabled:
        why = f"policy {found.policy} has the cache off"
    elif found.masked is None:
        why = _why_no_key(body)
    elif known is None:
        why = "nothing is known of this template"
    elif known.state == "refused":
        why = f"{known.name} is refused {_since(known)}: {known.reason}"
    elif known.state == "expired":
        why = f"{known.name}, {_since(known)}, has expired and is learnt anew"
    elif known.state == "doubtful":
        label = f"{known.label}, confidence {known.confidence:.2f}"
        why = f"{known.name}, {_since(known)}: {label}, is not accepted, and policy {found.policy} caches only what is"
    elif known.state == "learning" and not found.witness:
        why = f"{known.name} is learning {_since(known)}: {known.label}, {known.witnesses} of {known.wanted} events"
    elif not found.cuttable:
        why = f"{known.name} does not know which words of this event its fields are"
    return why


def _why_no_key(body: str) -> str:
    if len(body) > LONGEST_TEXT:
        return f"it is longer than {LONGEST_TEXT} characters"
    if OPEN in body or CLOSE in body:
        return "it holds a control character that is kept for masks"
    return "too many of its words would be masked"


def _since(known: Template) -> str:
    return f"since {datetime.fromtimestamp(known.since).astimezone():%Y-%m-%d %H:%M:%S}"


def _percent(share: float) -> str:
    return f"{share * 100:.2f} %"


def _seconds_since(then: float, now: float) -> int:
    return max(0, int(now - then))  # the clock may have stepped back


def _age(then: float, now: float) -> str:
    seconds = _seconds_since(then, now)
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
