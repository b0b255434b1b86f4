"""Verdicts under one key, in the order of their events: when they are an incident, what is in it, when it ends. Pure.

A verdict waits until its place in the order of time is settled: until one under the same key came whose event is later
by the lateness, or until nothing came for so long. What settles is put behind what settled before:

* While no incident is open, what lies within the window is kept; as soon as that is enough, it is an incident.
* While one is open, everything joins that comes within the window behind its last event; what comes later ends it.

So the same verdicts are the same incident in whatever order they come, as long as none comes later than the lateness.
One that does is late. It joins an incident that is open, or what lies within the window, and is counted there; where
there is neither it is dropped, and counted as that. A gateway whose clock is ahead of ours by more than the lateness
would make all others late: its event occurs when it comes.

A verdict of a higher revision stands in for the one before; where it says another label than the rule asks for, it is
taken out. Everything is bounded: keys, of which the longest untouched goes; verdicts that wait; those that an incident
names; those that it has whole; and each in bytes, for which a long text is cut.
"""

from bisect import insort
from collections import Counter
from collections.abc import Iterable
from hashlib import blake2b
from math import ceil
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct
from msgspec.structs import astuple, replace

from models.contracts.incident import Incident
from models.contracts.policy import Route
from models.contracts.scalars import EventId, LabelName, Name, Number
from models.contracts.wire import decode_verdict, encode

SHARDS = 64
"""In so many parts the keys of a rule are kept. It belongs to the recovery store: it stays what it is."""

_MOST_WHOLE = 100
_MOST_WHOLE_BYTES = 256 << 10
_MOST_SPARE = 10
_MOST_VERDICT_BYTES = 4 << 10  # all that wait under a key are written with every snapshot
_ID_BYTES = 16

RuleName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
"""Of a rule; without the full stop, which Bytewax keeps for itself."""

_Seconds = Annotated[float, Meta(gt=0)]


class IncidentRule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """So many verdicts with one of these labels, under one key, within so long, are an incident."""

    name: RuleName  # part of the recovery state: keep it
    labels: Annotated[tuple[LabelName, ...], Meta(min_length=1)]
    routes: tuple[Route, ...] = ("accepted", "escalated", "review")  # an unsure verdict's label is no model's
    key: Literal["address", "host", "source"] = "address"
    fields: tuple[Name, ...] = ("source",)  # where an address is looked for; then in the text, where the first counts
    at_least: Number = 5
    within_s: _Seconds = 120.0
    lateness_s: Annotated[float, Meta(ge=0)] = 30.0  # by so much an incident is told later, and no more
    update_s: _Seconds = 60.0  # an incident that goes on is told anew no more often
    clock_s: _Seconds = 600.0  # a sender's clock that is further from ours is not believed
    most_events: Number = 1000  # under one key: that wait, and that an incident names
    most_keys: Number = 16_384

    def __post_init__(self) -> None:
        if self.at_least > self.most_events:
            raise ValueError(f"rule {self.name}: found `at_least` {self.at_least}, wanted at most {self.most_events}")


class Sighting(Struct, frozen=True, gc=False):
    """A verdict as a rule sees it under one key."""

    key: str
    id: EventId
    revision: int
    at_ms: int = 0  # when its event occurred
    label: str = ""  # none where this is to take back what was said of the event before
    gateway: str | None = None
    verdict: bytes = b""  # the whole, encoded; of a long text what there is room for
    late: bool = False


class _Found:
    """An incident that is open."""

    def __init__(self, first: Iterable[Sighting]) -> None:
        self.said: dict[EventId, tuple[int, str]] = {}  # revision and label; no label where it was taken back
        self.whole: dict[EventId, bytes] = {}
        self.spare: dict[EventId, bytes] = {}  # the newest for which there is no room, for when some are taken back
        self.labels: Counter[str] = Counter()
        self.gateways: set[str] = set()
        self.start_ms = self.first_ms = self.last_ms = -1
        self.late = self.unnamed = self.changes = 0
        self.told: tuple[int, str] | None = None  # which of the changes, and that it stood
        self.told_ms = 0
        for sighting in first:
            self.add(sighting, len(self.said) + 1)
        self.changes = 0

    @property
    def count(self) -> int:
        return self.labels.total()

    def add(self, sighting: Sighting, most: int) -> None:
        if len(self.said) < most:
            self.said[sighting.id] = sighting.revision, sighting.label
            self._keep(sighting.id, sighting.verdict)
        else:
            self.unnamed += 1
        if self.start_ms < 0:
            self.start_ms = self.first_ms = sighting.at_ms
        self.first_ms = min(self.first_ms, sighting.at_ms)
        self.last_ms = max(self.last_ms, sighting.at_ms)
        self.late += sighting.late
        self._count(sighting)

    def revise(self, sighting: Sighting) -> None:
        """Let a later verdict on an event stand in for an earlier one."""
        before = self.said[sighting.id][1]
        self.said[sighting.id] = sighting.revision, sighting.label
        if before:
            self.labels[before] -= 1
        if sighting.label:
            self._keep(sighting.id, sighting.verdict)
        else:
            self.whole.pop(sighting.id, None)
            self.spare.pop(sighting.id, None)
        self._fill()
        self._count(sighting)

    def _keep(self, each: EventId, verdict: bytes) -> None:
        """Keep a verdict whole; in reserve, where there is no room for it."""
        self.spare.pop(each, None)
        if self._has_room(each, verdict):
            self.whole[each] = verdict
            return
        self.whole.pop(each, None)
        self.spare[each] = verdict
        if len(self.spare) > _MOST_SPARE:
            del self.spare[next(iter(self.spare))]

    def _fill(self) -> None:
        """Let those in reserve stand where others stood: of an incident that goes on, something is to be seen."""
        for each in list(self.spare):
            if not self._has_room(each, self.spare[each]):
                break
            self.whole[each] = self.spare.pop(each)

    def _has_room(self, each: EventId, verdict: bytes) -> bool:
        if each not in self.whole and len(self.whole) >= _MOST_WHOLE:
            return False
        others = sum(len(kept) for other, kept in self.whole.items() if other != each)
        return not others or others + len(verdict) <= _MOST_WHOLE_BYTES  # one there is, however long

    def _count(self, sighting: Sighting) -> None:
        if sighting.label:
            self.labels[sighting.label] += 1
            if sighting.gateway:
                self.gateways.add(sighting.gateway)
        self.changes += 1

    def state(self) -> tuple[Any, ...]:
        return (
            tuple((each, *said) for each, said in self.said.items()),
            tuple(self.whole.items()),
            tuple(self.labels.items()),
            tuple(sorted(self.gateways)),
            (self.start_ms, self.first_ms, self.last_ms, self.late, self.unnamed, self.changes),
            (self.told, self.told_ms),
            tuple(self.spare.items()),
        )

    @classmethod
    def of(cls, state: tuple[Any, ...]) -> "_Found":
        found = cls(())
        said, whole, labels, gateways, numbers, told, *spare = state  # which older snapshots do not have
        found.said = {each: (revision, label) for each, revision, label in said}
        found.whole, found.labels, found.gateways = dict(whole), Counter(dict(labels)), set(gateways)
        found.start_ms, found.first_ms, found.last_ms, found.late, found.unnamed, found.changes = numbers
        found.told, found.told_ms = told
        found.spare = dict(*spare)
        return found


class _Trail:
    """What is remembered under one key."""

    def __init__(self, rule: IncidentRule, key: str, now_ms: int) -> None:
        self._rule = rule
        self._key = key
        self._within_ms = round(rule.within_s * 1000)
        self._lateness_ms = round(rule.lateness_s * 1000)
        self._known: dict[EventId, Sighting] = {}  # of which one of the next two has the place
        self._waiting: list[tuple[int, EventId]] = []  # in order of time
        self._recent: list[tuple[int, EventId]] = []  # settled, and within the window
        self._found: _Found | None = None
        self._newest_ms = self._settled_ms = -1
        self._arrived_ms = now_ms
        self._ended: list[Incident] = []

    @property
    def is_open(self) -> bool:
        return self._found is not None

    @property
    def due_ms(self) -> int:
        """When to wake at the latest, by our clock."""
        idle_ms = self._lateness_ms if self._waiting else self._lateness_ms + self._within_ms
        due_ms = self._arrived_ms + idle_ms
        found = self._found
        if found is not None and found.told is not None and found.told[0] != found.changes:
            due_ms = min(due_ms, found.told_ms + round(self._rule.update_s * 1000))
        return due_ms

    def take(self, sighting: Sighting, now_ms: int) -> bool:
        """Take one in; return whether it came too late for anything."""
        found, known = self._found, self._known.get(sighting.id)
        if known is not None:
            self._replace(known, sighting)
            return False
        if found is not None and sighting.id in found.said:
            if sighting.revision > found.said[sighting.id][0]:
                found.revise(sighting)
            return False
        if not sighting.label:
            return False
        self._arrived_ms = now_ms
        if sighting.at_ms < self._settled_ms:
            return not self._joins_late(replace(sighting, late=True))
        self._known[sighting.id] = sighting
        insort(self._waiting, (sighting.at_ms, sighting.id))
        self._newest_ms = max(self._newest_ms, sighting.at_ms)
        settled_ms = self._newest_ms - self._lateness_ms
        if len(self._waiting) > self._rule.most_events:
            settled_ms = max(settled_ms, self._waiting[0][0])
        self._settle(settled_ms)
        return False

    def wake(self, now_ms: int) -> bool:
        """Do what time alone brings about; return whether there is nothing left to remember."""
        self._arrived_ms = min(self._arrived_ms, now_ms)  # a clock that was put back
        idle_ms = now_ms - self._arrived_ms
        if self._waiting and idle_ms >= self._lateness_ms:
            self._settle(self._newest_ms)
        if idle_ms < self._lateness_ms + self._within_ms:
            return False
        self.finish()
        return True

    def finish(self) -> None:
        """Wait for nothing more."""
        self._settle(self._newest_ms)
        self._end()

    def tell(self, now_ms: int) -> list[Incident]:
        """Return what is to be told now: what ended, and what is open where that is news."""
        told, self._ended = self._ended, []
        found = self._found
        if found is not None and self._is_news(found, now_ms):
            incident = self._incident(found, "open")
            found.told, found.told_ms = (found.changes, incident.state), now_ms
            told.append(incident)
        return told

    def _is_news(self, found: _Found, now_ms: int) -> bool:
        stands = found.count >= self._rule.at_least
        if found.told is None:
            return stands
        if found.told[0] == found.changes:
            return False
        found.told_ms = min(found.told_ms, now_ms)  # a clock that was put back
        return stands != (found.told[1] == "open") or now_ms - found.told_ms >= self._rule.update_s * 1000

    def _end(self) -> None:
        """End the incident that is open, if one is; one that was taken back before it was told is never told."""
        found, self._found = self._found, None
        if found is not None and (found.told is not None or found.count >= self._rule.at_least):
            found.changes += 1
            self._ended.append(self._incident(found, "closed"))

    def _joins_late(self, sighting: Sighting) -> bool:
        """Use what comes behind its place in time; return whether anything is left that it belongs to."""
        if self._found is not None:
            self._found.add(sighting, self._rule.most_events)
        elif sighting.at_ms >= self._settled_ms - self._within_ms:
            self._known[sighting.id] = sighting
            self._keep(sighting.at_ms, sighting.id)
        else:
            return False
        return True

    def _replace(self, known: Sighting, sighting: Sighting) -> None:
        if sighting.revision <= known.revision:
            return
        if sighting.label:
            self._known[sighting.id] = replace(sighting, at_ms=known.at_ms)
            return
        del self._known[sighting.id]
        place = known.at_ms, known.id
        (self._waiting if place in self._waiting else self._recent).remove(place)

    def _settle(self, upto_ms: int) -> None:
        settled = 0
        for at_ms, each in self._waiting:
            if at_ms > upto_ms:
                break
            self._put(at_ms, each)
            settled += 1
        del self._waiting[:settled]
        self._settled_ms = max(self._settled_ms, upto_ms)
        if self._found is not None and self._settled_ms - self._found.last_ms > self._within_ms:
            self._end()

    def _put(self, at_ms: int, each: EventId) -> None:
        """Put what is settled behind what settled before."""
        found = self._found
        if found is not None:
            if at_ms - found.last_ms <= self._within_ms:
                found.add(self._known.pop(each), self._rule.most_events)
                return
            self._end()
        self._keep(at_ms, each)

    def _keep(self, at_ms: int, each: EventId) -> None:
        """Keep what is within the window of the newest of it, until that is enough."""
        insort(self._recent, (at_ms, each))
        while self._recent[-1][0] - self._recent[0][0] > self._within_ms:
            del self._known[self._recent.pop(0)[1]]
        if len(self._recent) >= self._rule.at_least:
            self._found = _Found(self._known.pop(place[1]) for place in self._recent)
            self._recent = []

    def _incident(self, found: _Found, state: Literal["open", "closed"]) -> Incident:
        named = [each for each, (_, label) in found.said.items() if label and each not in found.whole]
        digest = blake2b(
            f"{self._rule.name}\0{self._key}\0{found.start_ms}".encode("utf-8", "surrogatepass"), digest_size=_ID_BYTES
        )
        return Incident(
            id=digest.hexdigest(),
            rule=self._rule.name,
            key=self._key,
            revision=found.changes,
            state=state if found.count >= self._rule.at_least else "withdrawn",
            first_ms=found.first_ms,
            last_ms=found.last_ms,
            count=found.count,
            late=found.late,
            labels=dict(sorted((+found.labels).items())),
            gateways=tuple(sorted(found.gateways)),
            verdicts=tuple(map(decode_verdict, found.whole.values())),
            more=tuple(named),
            unnamed=found.unnamed,
        )

    def state(self) -> tuple[Any, ...]:
        known = self._known
        return (
            self._key,
            tuple(astuple(known[each]) for _, each in self._waiting),
            tuple(astuple(known[each]) for _, each in self._recent),
            None if self._found is None else self._found.state(),
            (self._newest_ms, self._settled_ms),
        )

    @classmethod
    def of(cls, rule: IncidentRule, state: tuple[Any, ...], now_ms: int) -> "_Trail":
        key, waiting, recent, found, times = state
        trail = cls(rule, key, now_ms)
        for kept, places in ((waiting, trail._waiting), (recent, trail._recent)):
            for sighting in (Sighting(*each) for each in kept):
                trail._known[sighting.id] = sighting
                places.append((sighting.at_ms, sighting.id))
        trail._found = None if found is None else _Found.of(found)
        trail._newest_ms, trail._settled_ms = times
        return trail


class Shard:
    """A part of the keys of one rule. Times are milliseconds since 1970."""

    def __init__(self, rule: IncidentRule, now_ms: int, state: tuple[Any, ...] = ((), ())) -> None:
        """Begin empty, or with what `state` returned. How long a key is idle counts anew: we were not there."""
        trails, taken_back = state
        self._rule = rule
        self._lateness_ms = round(rule.lateness_s * 1000)
        self._most_keys = ceil(rule.most_keys / SHARDS)
        self._trails = {trail[0]: _Trail.of(rule, trail, now_ms) for trail in trails}  # the most lately used last
        self._taken_back: dict[tuple[str, EventId], int] = dict(taken_back)
        self.due_ms = min((trail.due_ms for trail in self._trails.values()), default=None)
        self.counts: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._trails)

    @property
    def is_empty(self) -> bool:
        return not (self._trails or self._taken_back)

    def take(self, sightings: Iterable[Sighting], now_ms: int) -> list[Incident]:
        """Take verdicts in, and return the incidents that are to be told now."""
        told: list[Incident] = []
        touched: dict[str, None] = {}
        for sighting in sightings:
            if self._is_outdated(sighting):
                continue
            trail = self._trails.get(sighting.key)
            if trail is None:
                if not sighting.label:
                    continue
                told += self._make_room(now_ms)
                trail = _Trail(self._rule, sighting.key, now_ms)
            if sighting.label:
                self._trails.pop(sighting.key, None)
                self._trails[sighting.key] = trail
            if sighting.at_ms - now_ms > self._lateness_ms:
                sighting = replace(sighting, at_ms=now_ms)  # noqa: PLW2901
            if len(sighting.verdict) > _MOST_VERDICT_BYTES:
                sighting = replace(sighting, verdict=_shortened(sighting.verdict))  # noqa: PLW2901
            self.counts["late"] += trail.take(sighting, now_ms)
            touched[sighting.key] = None
        for key in touched:
            trail = self._trails.get(key)
            if trail is not None:
                told += trail.tell(now_ms)
                self.due_ms = trail.due_ms if self.due_ms is None else min(self.due_ms, trail.due_ms)
        return told

    def wake(self, now_ms: int) -> list[Incident]:
        """Do what is due, and return the incidents that are to be told now."""
        told: list[Incident] = []
        for key, trail in list(self._trails.items()):
            if trail.wake(now_ms):
                del self._trails[key]
            told += trail.tell(now_ms)
        self.due_ms = min((trail.due_ms for trail in self._trails.values()), default=None)
        return told

    def state(self) -> tuple[Any, ...]:
        """Return all that is to survive, as plain tuples."""
        return tuple(trail.state() for trail in self._trails.values()), tuple(self._taken_back.items())

    def _is_outdated(self, sighting: Sighting) -> bool:
        """Tell whether an event was taken back already by a higher revision, which may come first."""
        place = sighting.key, sighting.id
        if sighting.revision <= self._taken_back.get(place, -1):
            return True
        self._taken_back.pop(place, None)
        if not sighting.label:
            self._taken_back[place] = sighting.revision
            if len(self._taken_back) > self._most_keys:
                del self._taken_back[next(iter(self._taken_back))]
        return False

    def _make_room(self, now_ms: int) -> list[Incident]:
        if len(self._trails) < self._most_keys:
            return []
        oldest = next(iter(self._trails))
        evicted = self._trails.pop(next((key for key, trail in self._trails.items() if not trail.is_open), oldest))
        self.counts["evicted"] += 1
        evicted.finish()
        return evicted.tell(now_ms)


def _shortened(line: bytes) -> bytes:
    """Return a verdict with as much of its text as there is room for, without what else of it is long."""
    verdict = replace(decode_verdict(line), truncated=True)
    rest = len(encode(replace(verdict, text="")))
    if rest > _MOST_VERDICT_BYTES // 2:
        verdict = replace(verdict, fields={}, context={}, host=None, app=None, topic=None)
        rest = len(encode(replace(verdict, text="")))
    while verdict.text and (size := len(encode(verdict))) > _MOST_VERDICT_BYTES:
        kept = len(verdict.text) * max(0, _MOST_VERDICT_BYTES - rest) // (size - rest)
        verdict = replace(verdict, text=verdict.text[:kept])
    return encode(verdict)
