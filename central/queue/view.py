"""What a person sees of the queue: items as a table, as lines with tabs or as JSON, and one of them whole. Pure.

Items hold text of strangers: all that is shown of it went through `visible`, and JSON is ASCII.
"""

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct
from rich.table import Table
from rich.text import Text

from central.queue.item import Item, State, labels_of
from central.queue.store import Counts
from central.visible import visible
from models.contracts.verdict import Verdict

_LATEST_MS = 253_402_300_799_000  # the end of the year 9999, beyond which Python has no dates
_BAR_COLUMNS = 24
_MOST_EVENTS = 20  # of an incident
_WIDEST = 32  # of a column; ids of senders can be much longer, and are folded
_HEADINGS = ("id", "label", "sure", "waits", "source", "gateway", "state")
_FIGURES = {"sure", "waits"}
_FIELDS = ("id", "kind", "state", "label", "confidence", "waits_s", "source", "gateway", "claimed_by", "answer", "text")
_STYLES: dict[State, str] = {"waiting": "yellow", "claimed": "cyan", "answered": "green", "superseded": "dim"}
_OF_THE_DATABASE = ("record", "settled", "published_at_ms", "unpublishable")


def table(items: Sequence[Item], now_ms: int) -> Table:
    """Return two lines for each item, what is said of it above and its text below; a very long id has one more."""
    rows = [_cells(item, now_ms) for item in items]
    columns = zip(_HEADINGS, *rows, strict=True)
    widths = [max(len(cell) for cell in column if len(cell) <= _WIDEST) for column in columns]
    lines = Table.grid()
    lines.add_row(_line(_HEADINGS, widths, "bold", "bold"))
    for item, row in zip(items, rows, strict=True):
        if len(row[0]) > _WIDEST:
            lines.add_row(Text(row[0], overflow="fold"))
            row = ("", *row[1:])  # noqa: PLW2901 - the same, shown above
        lines.add_row(_line(row, widths, "", _STYLES[item.state]))
        lines.add_row(Text(f"  {visible(_summary(item))}", "dim", no_wrap=True, overflow="ellipsis"))
    return lines


def fields(items: Sequence[Item], now_ms: int) -> Iterator[str]:
    """Yield the names of the fields, and then those of each item, with tabs between them."""
    yield "\t".join(_FIELDS)
    for item in items:
        found = (
            item.id,
            item.kind,
            item.state,
            item.label,
            f"{item.confidence:.4f}",
            str(max(0, now_ms - item.waiting_since_ms) // 1000),
            item.source,
            item.gateway or "",
            item.claimed_by or "",
            item.answer or "",
            _summary(item),
        )
        yield "\t".join(map(visible, found))


def json_line(item: Item) -> str:
    """Return an item as one line of JSON, with the verdict or the incident in it."""
    row = msgspec.to_builtins({name: getattr(item, name) for name in item.__struct_fields__ if name != "record"})
    row = {name: value for name, value in row.items() if name not in _OF_THE_DATABASE}
    return ascii_line({**row, item.kind: msgspec.json.decode(item.record)})


def ascii_line(record: Struct | dict[str, Any]) -> str:
    """Return a record as JSON that any terminal may show: whatever is not ASCII is escaped."""
    return json.dumps(msgspec.to_builtins(record), ensure_ascii=True)


def whole(item: Item, now_ms: int) -> Text:
    """Return all that is known of an item, and which labels it may be given."""
    verdict = item.verdict
    shown = Text()
    _say(shown, item.kind, visible(item.id))
    _say(shown, "state", _standing(item, now_ms))
    if item.kind == "incident":
        _say_incident(shown, item)
    else:
        _say(shown, "text", visible(verdict.text), style="bold")
        _say(shown, "seen", _seen(verdict))
    for name, values in verdict.fields.items():
        _say(shown, visible(name), visible(", ".join(values)))
    for name, known in verdict.context.items():
        _say(shown, "context", visible(f"{name}: {known}"))
    said = (
        f"{verdict.label}, confidence {verdict.confidence:.2f}, by {visible(verdict.release)}, policy {verdict.policy}"
    )
    _say(shown, "said", said + (f", from the cache ({visible(verdict.cached)})" if verdict.cached else ""))
    if verdict.reason:
        _say(shown, "reason", visible(verdict.reason))
    for number, name in enumerate(labels_of(verdict), start=1):
        probability = verdict.probabilities.get(name, 0.0)
        bar = "#" * round(probability * _BAR_COLUMNS)
        _say(shown, f"{number:>3}", f"{visible(name):<16} {probability:4.0%}  {bar}")
    if item.answer is not None:
        by = f"{item.answer} by {visible(item.answered_by or '')}, {at(item.answered_at_ms or 0)}"
        _say(shown, "answer", by + (f": {visible(item.note)}" if item.note else ""))
    if item.unpublishable is not None:
        _say(shown, "refused", f"Kafka will never take the answer: {visible(item.unpublishable)}")
    shown.rstrip()
    return shown


def standing(counts: Counts, now_ms: int) -> Iterator[tuple[str, str]]:
    """Yield how the queue stands, in names and values."""
    for name in ("waiting", "claimed", "answered", "superseded", "unpublished", "unpublishable"):
        yield name, str(getattr(counts, name))
    yield "oldest_waits_s", "" if counts.oldest_ms is None else str(max(0, now_ms - counts.oldest_ms) // 1000)
    for label, open_items in counts.open_by_label.items():
        yield f"open_{visible(label)}", str(open_items)


def at(moment_ms: int) -> str:
    """Return a moment as this machine's clock would show it."""
    return f"{datetime.fromtimestamp(min(moment_ms, _LATEST_MS) / 1000).astimezone():%Y-%m-%d %H:%M:%S%z}"


def _cells(item: Item, now_ms: int) -> tuple[str, ...]:
    return (
        visible(item.id),
        item.label,
        f"{item.confidence:.2f}",
        _span(now_ms - item.waiting_since_ms),
        item.source,
        item.gateway or "",
        _standing(item, now_ms),
    )


def _line(cells: Sequence[str], widths: Sequence[int], style: str, style_of_state: str) -> Text:
    line = Text(style=style, no_wrap=True, overflow="ellipsis")
    for heading, cell, width in zip(_HEADINGS[:-1], cells, widths, strict=False):
        line.append(cell.rjust(width) if heading in _FIGURES else cell.ljust(width)).append("  ")
    return line.append(cells[-1], style_of_state)


def _summary(item: Item) -> str:
    if item.kind == "event":
        return item.verdict.text
    found = item.incident
    labels = ", ".join(f"{count} {label}" for label, count in found.labels.items())
    return f"{found.rule} {found.key}: {labels}; {found.verdicts[0].text}"


def _standing(item: Item, now_ms: int) -> str:
    match item.state:
        case "claimed":
            return f"claimed by {visible(item.claimed_by or '')}, {_span((item.claimed_until_ms or 0) - now_ms)} more"
        case "answered":
            return f"answered: {item.answer} by {visible(item.answered_by or '')}"
        case "superseded":
            return f"superseded by revision {item.settled}"
        case waiting:
            return waiting


def _seen(verdict: Verdict) -> str:
    where = {"source": verdict.source, "gateway": verdict.gateway, "host": verdict.host, "app": verdict.app}
    return ", ".join(
        [at(verdict.received_at_ms), *(f"{name} {visible(value)}" for name, value in where.items() if value)]
    )


def _say_incident(shown: Text, item: Item) -> None:
    found = item.incident
    _say(shown, "rule", f"{found.rule}: {visible(found.key)}, {found.state}")
    _say(shown, "from", f"{at(found.first_ms)} to {at(found.last_ms)}")
    _say(shown, "labels", ", ".join(f"{count} {label}" for label, count in found.labels.items()))
    for verdict in found.verdicts[:_MOST_EVENTS]:
        moment = verdict.occurred_at_ms if verdict.occurred_at_ms is not None else verdict.received_at_ms
        _say(shown, "event", f"{at(moment)} {verdict.label} {visible(verdict.id)}", style="bold")
        _say(shown, "", visible(verdict.text))
    if left := found.count - len(found.verdicts[:_MOST_EVENTS]):
        _say(shown, "", f"and {left} more")


def _say(shown: Text, heading: str, words: str, style: str = "") -> None:
    shown.append(f"{heading:9} ", "dim").append(words, style).append("\n")


def _span(span_ms: int) -> str:
    seconds = max(0, span_ms) // 1000
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
