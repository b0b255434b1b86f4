"""Events in; the same events, with what is known of their hosts and addresses, out."""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Literal

from bytewax import operators as op
from bytewax.dataflow import Stream, operator
from msgspec import Struct
from msgspec.structs import replace

from dataflows.addresses import addresses_in
from dataflows.lookup import Facts, Lookup
from dataflows.operators.patience import patiently
from models.contracts.event import Event
from models.contracts.opinion import Opinion
from models.contracts.scalars import FactName
from models.contracts.task import Task

_NOT_PLAIN = re.compile(r"[^\w.-]")
_LONGEST_SHOWN = 48  # characters of a value
_UNKNOWN = "-"


class Enrichment(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is looked up for an event: in which table, by which part of it, and what of it becomes a fact.

    By `address`, the first address in the text counts that the table knows. `otherwise` is what is known of an event
    that has such a part, of which the table knows nothing. A table that is not fresh is a fact, too: the event's
    context has its name, with the value `stale` or `away`.
    """

    table: FactName
    key: Literal["address", "host", "app", "source", "topic", "gateway"]
    facts: tuple[FactName, ...]
    otherwise: dict[FactName, str] = {}


class Enriching(Struct, frozen=True):
    """All that is looked up, and where."""

    wanted: tuple[Enrichment, ...]
    lookup: Lookup


@operator
def enrich(
    step_id: str, up: Stream[list[Event]], enriching: Enriching, wait: Callable[[float], bool]
) -> Stream[list[Event]]:
    """Give events their facts, a list at once; `wait(seconds)` returns whether to stop."""

    def step(events: list[Event]) -> list[Event]:
        return patiently(lambda: enrich_events(events, enriching.wanted, enriching.lookup), wait, "lookup_unavailable")

    return op.map("facts", up, step)


def enrich_events(events: list[Event], wanted: Iterable[Enrichment], lookup: Lookup) -> list[Event]:
    """Return the events, each with what is known of it; earlier facts stay unless a new one has their name.

    Raises:
        UnavailableError: a table is not fresh, and is to be waited for.
    """
    contexts = [event.context for event in events]
    for enrichment in wanted:
        found = _Finding(enrichment, lookup)
        contexts = [
            {**context, **facts} if (facts := found.facts(event)) else context
            for context, event in zip(contexts, events, strict=True)
        ]
    return [
        event if context is event.context else replace(event, context=context)
        for event, context in zip(events, contexts, strict=True)
    ]


def show(events: Sequence[Event], task: Task) -> Sequence[Event]:
    """Return events as a task wants them read: the facts that it names on one line in front, whether known or not.

    The line always stands there, so an event that begins with a line like it has it in the second place. A word of the
    line has a colon in it and is no address, number or time: the verdict cache keeps it as it is.
    """
    if not task.context:
        return events
    return [replace(event, body=f"{_line(event.context, task.context)} {event.body}") for event in events]


def grounded(events: Sequence[Event], opinions: Sequence[Opinion], task: Task) -> Sequence[Opinion]:
    """Return the opinions on events as `show` returned them, without what they copied from the line of facts alone."""
    if not task.context:
        return opinions
    copied = {field.name for field in task.fields if field.kind == "copied"}
    return [_grounded(event, opinion, task, copied) for event, opinion in zip(events, opinions, strict=True)]


def _grounded(event: Event, opinion: Opinion, task: Task, copied: Collection[str]) -> Opinion:
    body = event.body[len(_line(event.context, task.context)) :]
    fields = {
        name: values if name not in copied else tuple(value for value in values if value in body)
        for name, values in opinion.fields.items()
    }
    if fields == opinion.fields:
        return opinion
    dropped = sum(map(len, opinion.fields.values())) - sum(map(len, fields.values()))
    kept = {name: values for name, values in fields.items() if values}
    return replace(opinion, fields=kept, ungrounded=opinion.ungrounded + dropped)


def _line(context: Mapping[str, str], names: Iterable[str]) -> str:
    words = (f"{name}:{_NOT_PLAIN.sub('_', context.get(name, ''))[:_LONGEST_SHOWN] or _UNKNOWN}" for name in names)
    return f"[{' '.join(words)}]"


class _Finding:
    """One enrichment for one list of events, in which hosts and addresses repeat themselves."""

    def __init__(self, enrichment: Enrichment, lookup: Lookup) -> None:
        self._enrichment = enrichment
        self._lookup = lookup
        state = lookup.state(enrichment.table)
        self._is_away = state == "away"
        self._mark: Facts = {} if state == "fresh" else {enrichment.table: state}
        self._by_key: dict[str, Facts | None] = {}

    def facts(self, event: Event) -> Facts:
        """Return what is known of one event."""
        if self._is_away:
            return self._mark
        keyed = False
        for key in self._keys(event):
            keyed = True
            if key not in self._by_key:
                self._by_key[key] = self._find(key)
            facts = self._by_key[key]
            if facts is not None:
                return facts
        return {**self._enrichment.otherwise, **self._mark} if keyed else self._mark

    def _find(self, key: str) -> Facts | None:
        enrichment = self._enrichment
        found = self._lookup.find(enrichment.table, key)
        if found is None:
            return None
        return {**{name: found[name] for name in enrichment.facts if name in found}, **self._mark}

    def _keys(self, event: Event) -> Iterator[str]:
        if self._enrichment.key == "address":
            yield from addresses_in(event.text)
        else:
            key: str | None = getattr(event, self._enrichment.key)
            if key:
                yield key
