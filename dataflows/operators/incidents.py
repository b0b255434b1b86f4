"""Verdicts in; incidents, which are several of them under one key that came close together, out.

Only what a rule asks for leaves its worker, and what takes such a verdict back. The keys of a rule are kept in shards,
each on one worker: so their number has a bound, and one list of verdicts is one item for a shard and not many.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal, Protocol
from zlib import crc32

from bytewax import operators as op
from bytewax.dataflow import Stream, operator
from bytewax.operators import StatefulBatchLogic

from dataflows.addresses import addresses_in
from dataflows.correlation import SHARDS, IncidentRule, Shard, Sighting
from models.contracts.errors import ConfigError
from models.contracts.incident import Incident
from models.contracts.verdict import Verdict
from models.contracts.wire import encode

State = tuple[Any, ...]
Miss = Literal["late", "evicted", "without-key"]


class Misses(Protocol):
    """Told of what a rule could not use, in the thread that worked on it; it must not block and must not raise."""

    def __call__(self, rule: str, why: Miss, times: int) -> None:
        """So many verdicts came too late for anything or have no key, or so many keys were evicted for others."""


@operator
def incidents(
    step_id: str,
    up: Stream[list[Verdict]],
    rules: Sequence[IncidentRule],
    misses: Misses,
    clock: Callable[[], datetime],
) -> Stream[list[Incident]]:
    """Find the incidents of each rule, of which there is one at least. `clock` tells the time as `datetime.now(UTC)`.

    What is kept of a rule survives a restart under the rule's name.

    Raises:
        ConfigError: two rules have one name.
    """
    names = [rule.name for rule in rules]
    if len(set(names)) < len(names):
        raise ConfigError(f"`incidents`: found {names}, wanted each name once")
    found = []
    for rule in rules:
        seen = op.flat_map(f"{rule.name}-seen", up, partial(by_shard, rule, misses))
        told = op.stateful_batch(rule.name, seen, partial(_Correlating, rule, misses, clock))
        found.append(op.map(f"{rule.name}-told", told, lambda keyed: keyed[1]))
    return op.merge("all", *found)


def by_shard(rule: IncidentRule, misses: Misses, verdicts: Iterable[Verdict]) -> list[tuple[str, list[Sighting]]]:
    """Return what a rule sees in verdicts, in order, by the shard of its key."""
    shards: dict[str, list[Sighting]] = defaultdict(list)
    without_key = 0
    for verdict in verdicts:
        counts = _counts(rule, verdict)
        # Most verdicts are neither, so they are looked at no further.
        if not counts and not verdict.revision:
            continue
        seen = sightings(rule, verdict)
        without_key += counts and not (seen and seen[0].label)
        for sighting in seen:
            shards[f"{crc32(sighting.key.encode('utf-8', 'surrogatepass')) % SHARDS:02}"].append(sighting)
    if without_key:
        misses(rule.name, "without-key", without_key)
    return list(shards.items())


def sightings(rule: IncidentRule, verdict: Verdict) -> list[Sighting]:
    """Return a verdict under its key, where its label counts; and what it takes back under other keys.

    What is said of fields may change with the revision, and the key with it. An address that a field has stands in the
    text as well, so whatever an earlier revision was counted under is among the text's addresses.
    """
    seen = []
    own = ""
    if _counts(rule, verdict):
        own = next(_keys(rule, verdict), "")
    if own:
        seen.append(
            Sighting(
                own,
                verdict.id,
                verdict.revision,
                occurred_ms(rule, verdict),
                verdict.label,
                verdict.gateway,
                encode(verdict),
            )
        )
    if verdict.revision:
        others = dict.fromkeys(_keys(rule, verdict))
        others.pop(own, None)
        seen += [Sighting(key, verdict.id, verdict.revision) for key in others]
    return seen


def occurred_ms(rule: IncidentRule, verdict: Verdict) -> int:
    """Return when the event of a verdict occurred: the sender's clock says it where it can be believed, or ours."""
    said_ms, ours_ms = verdict.occurred_at_ms, verdict.received_at_ms
    # Most that is wrong about a clock is its zone or its year; that must not make an event late, or others.
    return ours_ms if said_ms is None or abs(said_ms - ours_ms) > rule.clock_s * 1000 else said_ms


def _counts(rule: IncidentRule, verdict: Verdict) -> bool:
    # Where no model said anything the label is the task's default: an outage of the model is no incident.
    return verdict.label in rule.labels and verdict.route in rule.routes and not verdict.reason


def _keys(rule: IncidentRule, verdict: Verdict) -> Iterator[str]:
    """Yield the keys under which a verdict may stand; it stands under the first."""
    match rule.key:
        case "host":
            if verdict.host:
                yield verdict.host.lower()
        case "source":
            yield verdict.source
        case "address":
            for name in rule.fields:
                for value in verdict.fields.get(name, ()):
                    yield from addresses_in(value)
            yield from addresses_in(verdict.text)


class _Correlating(StatefulBatchLogic[list[Sighting], list[Incident], State]):
    """One shard as a step of the flow."""

    def __init__(
        self, rule: IncidentRule, misses: Misses, clock: Callable[[], datetime], kept: State | None = None
    ) -> None:
        self._rule = rule
        self._misses = misses
        self._clock = clock
        now_ms = self._now_ms()
        self._shard = Shard(rule, now_ms) if kept is None else Shard(rule, now_ms, kept)

    def on_batch(self, values: list[list[Sighting]]) -> tuple[list[list[Incident]], bool]:
        return self._after(self._shard.take((each for value in values for each in value), self._now_ms()))

    def on_notify(self) -> tuple[list[list[Incident]], bool]:
        return self._after(self._shard.wake(self._now_ms()))

    def on_eof(self) -> tuple[list[list[Incident]], bool]:
        return [], StatefulBatchLogic.RETAIN  # a flow that is told to stop goes on later, and so does an incident

    def notify_at(self) -> datetime | None:
        due_ms = self._shard.due_ms
        return None if due_ms is None else datetime.fromtimestamp(due_ms / 1000, UTC)

    def snapshot(self) -> State:
        return self._shard.state()

    def _now_ms(self) -> int:
        return int(self._clock().timestamp() * 1000)

    def _after(self, told: list[Incident]) -> tuple[list[list[Incident]], bool]:
        for why in ("late", "evicted"):
            times = self._shard.counts.pop(why, 0)
            if times:
                self._misses(self._rule.name, why, times)
        return ([told] if told else []), self._shard.is_empty
