"""The verdict cache: what may be answered without the model, and what the model's answers change about that.

A turn is one window of events. `recall` answers what it may; what is left is asked; `learn` takes those answers in, and
answers or asks the rest. A template is asked in full until enough of its events, all different, were answered alike.
Then it answers by itself, but for its audits, of which one that disagrees ends it for good.

Nothing here waits, locks or does I/O. One thread works with a cache; others may read it through `listing` and leave
wishes through `forget`, which are carried out at the next turn.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import islice
from queue import Empty, SimpleQueue
from time import time

from msgspec import Struct

from dataflows.cache.entry import (
    Entry,
    Fields,
    Refusal,
    agreed,
    answer_of,
    audit_below,
    audit_rate,
    instance_of,
    is_tied,
    name_of,
    packed,
)
from dataflows.cache.refusals import Refusals
from dataflows.cache.shelf import Shelf
from models.contracts.event import Event
from models.contracts.opinion import Opinion
from models.contracts.policy import Policy
from models.contracts.release import Release
from models.contracts.scalars import EventId
from models.masking import Masked, Masking

_MOST_DOUBTED = 512  # events that are asked again at once: seconds of the model


class Turn:
    """One window of events on its way to opinions. `asked` are the events that only the model can answer now."""

    def __init__(self, events: Sequence[Event]) -> None:
        self.events = events
        self.masked: list[Masked | None] = [None] * len(events)
        self.opinions: list[Opinion | None] = [None] * len(events)
        self.entries: list[Entry | None] = [None] * len(events)  # which answered
        self.templates: list[str | None] = [None] * len(events)  # and what it is called
        self.asked: list[int] = []
        self.waiting: list[int] = []  # for the answers to others of their template
        self.audited: dict[int, Entry] = {}
        self.proofs: list[Entry] = []  # of which an audit agreed


class Recent(Struct, frozen=True, gc=False):
    """An event that was answered from the cache, and what was said."""

    key: str
    event: Event
    label: int
    sure: bool
    fields: Fields
    at: float


class VerdictCache:
    """The entries of one process."""

    def __init__(self, secret: bytes, clock: Callable[[], float] = time) -> None:
        """Begin empty. By `secret` events are picked for audits, so that no sender can tell which are."""
        self._draws = blake2b(digest_size=4, key=secret)  # a copy of it costs half of what the key does
        self._clock = clock
        self._release: Release | None = None
        self._policy = Policy()
        self._rules = self._policy.cache
        self._masking = Masking()
        self._thresholds: tuple[float, ...] = ()
        self._may_doubt = True
        self._decision = 0
        self._grave: tuple[bool, ...] = ()
        self._copied: frozenset[str] = frozenset()
        self._shelf = Shelf()
        self._refused = Refusals()
        self._recent: deque[Recent] = deque(maxlen=self._rules.recent_events)
        self._doubted: dict[EventId, Recent] = {}
        self._wishes: SimpleQueue[str] = SimpleQueue()
        self.counts: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._shelf)

    @property
    def doubted(self) -> list[Recent]:
        """Events of earlier turns on which an audit has cast doubt: to be asked again now, and told to `corrected`."""
        return list(islice(self._doubted.values(), _MOST_DOUBTED))

    def follow(self, release: Release, policy: Policy) -> None:
        """Work by this release and this policy; what they make worthless is dropped."""
        if release is not self._release:
            self._clear()
            self._take(release, policy)
        elif policy is not self._policy:
            before, rules = self._rules, policy.cache
            if (before.masks, before.known_addresses) != (rules.masks, rules.known_addresses):
                self._clear()
            self._take(release, policy)
        self._grant()

    def recall(self, events: Sequence[Event]) -> Turn:
        """Answer the events that need no model, and say which ones to ask it about first."""
        turn = Turn(events)
        now = self._clock()
        asked_of: dict[str, set[str]] = {}  # texts of a template, in this turn
        mask, in_use = self._masking.mask, self._rules.enabled
        for at, event in enumerate(events):
            masked = turn.masked[at] = mask(event.body) if in_use and not event.truncated else None
            if masked is None:
                self._ask(turn, at)
                continue
            key = masked.key
            entry = self._find(key, now)
            if entry is not None and self._answers(entry, event.body):
                self._answer_or_audit(turn, at, entry)
                continue
            if not self._refused.meet(key) and (entry is None or not entry.answers):
                texts = asked_of.setdefault(key, set())
                if len(texts) == self._lacking(entry) or event.body in texts:
                    turn.waiting.append(at)
                    continue
                texts.add(event.body)
            self._ask(turn, at)
        if not turn.asked:
            self._settle(turn, now)
        return turn

    def learn(self, turn: Turn, answers: Mapping[EventId, Opinion]) -> None:
        """Take in what the model said about `turn.asked`, and say what to ask it next; nothing at last.

        An event without an answer became a dead letter.
        """
        now = self._clock()
        asked, turn.asked = turn.asked, []
        for at in asked:
            opinion = turn.opinions[at] = answers.get(turn.events[at].id)
            self._hear(turn, at, opinion, now)
        waiting, turn.waiting = turn.waiting, []
        for at in waiting:
            masked = turn.masked[at]
            entry = self._find(masked.key, now) if masked else None
            if entry is not None and self._answers(entry, turn.events[at].body):
                self._answer_or_audit(turn, at, entry)
            else:
                self._ask(turn, at)
        if not turn.asked:
            self._settle(turn, now)

    def corrected(self, doubted: Sequence[Recent], answers: Mapping[EventId, Opinion]) -> list[tuple[Event, Opinion]]:
        """Return the events about which the model, asked again, says something else than the cache did."""
        changed = []
        for recent in doubted:
            opinion = answers.get(recent.event.id)
            if opinion is not None and opinion.unanswered:
                continue  # in doubt it stays
            self._doubted.pop(recent.event.id, None)
            if opinion is None:
                continue
            label, sure = self._decide(opinion)
            if (label, sure, opinion.fields) != (recent.label, recent.sure, recent.fields):
                changed.append((recent.event, opinion))
        self.counts["corrected"] += len(changed)
        return changed

    def forget(self, name: str = "") -> None:
        """Ask for one template, or all, to be forgotten at the next turn. Any thread may call this."""
        self._wishes.put(name)

    def listing(self) -> Iterator[tuple[str, Entry]]:
        """Return keys and entries as they are now, the most lately used last. Any thread may call this."""
        return self._shelf.items()

    def refusals(self) -> list[tuple[str, Refusal]]:
        """Return the templates that are never to answer. Any thread may call this."""
        return list(self._refused.items())

    def restore(self, entries: Sequence[tuple[str, Entry]], refusals: Sequence[tuple[str, Refusal]]) -> None:
        """Take over what an earlier process kept under the same release and the same masks."""
        for _, entry in entries:
            entry.decided_by = 0  # by no thresholds of ours
        self._shelf.restore(entries)
        self._refused.restore(refusals)

    def explain(self, text: str) -> tuple[Masked | None, Entry | Refusal | None]:
        """Return the key of a text, and what is known of its template. Any thread may call this."""
        masked = self._masking.mask(text)
        if masked is None:
            return None, None
        return masked, self._shelf.get(masked.key) or self._refused.get(masked.key)

    def _take(self, release: Release, policy: Policy) -> None:
        rules, task = policy.cache, release.task
        self._release, self._policy, self._rules = release, policy, rules
        self._grave = tuple(name in task.fields_for for name in task.label_names)
        self._copied = frozenset(field.name for field in task.fields if field.kind == "copied")
        self._masking = Masking(rules.masks, rules.known_addresses)
        self._thresholds = tuple(policy.accepts_from(name) for name in task.label_names)
        self._may_doubt = rules.doubtful and not policy.may_be_unsure
        self._decision += 1
        self.counts["evicted"] += self._shelf.limit(rules.max_entries, rules.max_key_bytes)
        if self._recent.maxlen != rules.recent_events:
            self._recent = deque(self._recent, maxlen=rules.recent_events)

    def _clear(self) -> None:
        for kept in (self._shelf, self._refused, self._recent, self._doubted):
            kept.clear()

    def _grant(self) -> None:
        """Carry out what other threads wished for."""
        while True:
            try:
                name = self._wishes.get_nowait()
            except Empty:
                return
            if not name:
                self._clear()
            for kept in (self._shelf, self._refused):
                for key in [key for key, _ in kept.items() if name_of(key) == name]:
                    kept.drop(key)

    def _find(self, key: str, now: float) -> Entry | None:
        entry = self._shelf.get(key)
        if entry is None:
            return None
        rules = self._rules
        # A clock that went back makes an entry younger than it is.
        if not 0 <= now - entry.since <= rules.max_age_s or now - entry.used_at > rules.max_idle_s:
            self._shelf.drop(key)
            self.counts["expired"] += 1
            return None
        if entry.decided_by != self._decision and not self._decided_anew(entry):
            self._shelf.drop(key)
            return None
        return entry

    def _decided_anew(self, entry: Entry) -> bool:
        """Decide an entry by new thresholds; return whether its witnesses are all on one side of them."""
        answer, threshold = entry.answer, self._thresholds[entry.label]
        entry.sure = entry.confidence >= threshold and answer.label_mass >= self._policy.mass_floor
        entry.decided_by = self._decision
        self._set_audits(entry)
        return entry.sure or answer.highest < threshold

    def _decide(self, opinion: Opinion) -> tuple[int, bool]:
        """Return the most probable label's number, and whether a verdict by it is accepted."""
        confidence = max(opinion.probabilities)
        label = opinion.probabilities.index(confidence)
        return label, confidence >= self._thresholds[label] and opinion.label_mass >= self._policy.mass_floor

    def _answers(self, entry: Entry, text: str) -> bool:
        """Tell whether an entry may answer: it has all its witnesses, or the text is one of them."""
        if not (entry.sure or self._may_doubt):
            return False
        return entry.answers or instance_of(text) in entry.instances

    def _lacking(self, entry: Entry | None) -> int:
        """Return how many events are to be asked about: one at least, or a policy that wants fewer would get none."""
        if entry is None:
            return self._rules.ask_first
        return max(1, self._wanted(entry.label) - len(entry.instances))

    def _wanted(self, label: int) -> int:
        return self._rules.ask_first_grave if self._grave[label] else self._rules.ask_first

    def _ask(self, turn: Turn, at: int) -> None:
        turn.asked.append(at)
        self.counts["asked"] += 1

    def _answer_or_audit(self, turn: Turn, at: int, entry: Entry) -> None:
        event, masked = turn.events[at], turn.masked[at]
        if masked is None:
            return
        # The text, too: who names his events himself may find an id that is not audited, and keep it.
        draw = self._draws.copy()
        draw.update(f"{event.id}\0{event.body}".encode("utf-8", "surrogatepass"))
        drawn = draw.digest()
        if int.from_bytes(drawn, "big") < entry.audit_below:
            turn.asked.append(at)
            turn.audited[at] = entry
            return
        answer = entry.answer
        opinion = answer.to(event.body, masked.spans)
        if opinion is None:  # nobody knows which of two values the model would have taken
            self._ask(turn, at)
            return
        turn.opinions[at], turn.entries[at], turn.templates[at] = opinion, entry, answer.name

    def _hear(self, turn: Turn, at: int, opinion: Opinion | None, now: float) -> None:
        """Hold what the model said of an event against its entry, or begin one."""
        event, masked, audited = turn.events[at], turn.masked[at], turn.audited.pop(at, None)
        if masked is None or masked.key in self._refused:  # by another answer of this turn, perhaps
            return
        if opinion is not None and opinion.unanswered:  # what nobody said is for nothing and against nothing
            return
        key, text = masked.key, event.body
        entry = audited or self._find(key, now)
        if entry is None:
            if opinion is not None and not opinion.truncated:
                self._begin(key, text, masked, opinion, now)
            return
        reason = self._compare(entry, key, text, masked, opinion)
        if not reason:
            if audited:
                turn.proofs.append(entry)
            self._vouch(entry, text, masked)
            return
        if audited:
            self.counts["audits"] += 1
            self.counts["disagreements"] += 1
            reason = f"an audit disagreed: {reason}"
        self._refuse(key, reason, now, by_audit=entry.answers)
        if entry.answers:
            self._take_back(turn, key, entry, now)

    def _begin(self, key: str, text: str, masked: Masked, opinion: Opinion, now: float) -> None:
        answer = answer_of(opinion, key, self._copied, text, masked.spans)
        if answer is None:
            self._refuse(key, "a field cannot be cut from other events", now)
            return
        label, sure = self._decide(opinion)
        entry = Entry(packed=packed(answer), label=label, sure=sure, since=now, used_at=now, decided_by=self._decision)
        self.counts["evicted"] += self._shelf.add(key, entry)
        self._vouch(entry, text, masked)

    def _compare(self, entry: Entry, key: str, text: str, masked: Masked, opinion: Opinion | None) -> str:
        """Return what an opinion has against an entry; nothing where it agrees, and then the entry knows it."""
        if opinion is None or opinion.truncated:
            return "the model did not read all of an event"
        if self._decide(opinion) != (entry.label, entry.sure):
            return "the answers differ"
        answer = answer_of(opinion, key, self._copied, text, masked.spans)
        both = agreed(entry.answer, answer, entry.label) if answer else None
        if both is None:
            return "the fields differ"
        if not entry.sure and is_tied(both):
            return "its label leads by less than the answers differ"
        entry.packed = packed(both)
        return ""

    def _vouch(self, entry: Entry, text: str, masked: Masked) -> None:
        """Count a witness of an entry that does not answer yet; of one that does, that its audits agree."""
        if not entry.answers:
            instance = instance_of(text)
            if instance not in entry.instances:
                entry.instances = (*entry.instances, instance)
            # Without a mask every event of the template is the same text, and one answer is all there is.
            if masked.spans and len(entry.instances) < self._wanted(entry.label):
                return
            entry.answers, entry.instances = True, ()
        self._set_audits(entry)

    def _set_audits(self, entry: Entry) -> None:
        entry.audit_below = audit_below(audit_rate(entry, self._rules, grave=self._grave[entry.label]))

    def _take_back(self, turn: Turn, key: str, entry: Entry, now: float) -> None:
        """Have everything asked again that a template answered lately: of this turn, and of those before."""
        for at, answered in enumerate(turn.entries):
            if answered is entry:  # not yet said to anybody
                turn.opinions[at] = turn.entries[at] = turn.templates[at] = None
                self._ask(turn, at)
        lately = [recent for recent in self._recent if recent.key == key and now - recent.at <= self._rules.recent_s]
        self._doubted.update((recent.event.id, recent) for recent in lately)

    def _settle(self, turn: Turn, now: float) -> None:
        """Count what the cache answered, now that nothing of it can be taken back before it is said."""
        for event, masked, opinion, entry in zip(turn.events, turn.masked, turn.opinions, turn.entries, strict=True):
            if entry is None or masked is None or opinion is None:
                continue
            entry.hits += 1
            entry.used_at = now
            if entry.hits == self._rules.young_hits:
                self._set_audits(entry)
            self.counts["hits"] += 1
            self._recent.append(Recent(masked.key, event, entry.label, entry.sure, opinion.fields, now))
            self._shelf.hit(masked.key, entry)
        for entry in turn.proofs:  # only now: a turn that an outage cut short is done again
            self.counts["audits"] += 1
            entry.audits += 1
            entry.audited_at = now
            self._set_audits(entry)
        self.counts["expired"] += self._shelf.drop_idle(now - self._rules.max_idle_s)

    def _refuse(self, key: str, reason: str, now: float, *, by_audit: bool = False) -> None:
        self._shelf.drop(key)
        self._refused.add(key, Refusal(name_of(key), reason, now, by_audit))
        self.counts["refused"] += 1
