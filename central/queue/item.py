"""One thing that waits for a person: read from what was delivered, and told to others once it is answered. Pure."""

from typing import Final, Literal

from msgspec import Struct
from msgspec.structs import replace

from models.contracts import wire
from models.contracts.answer import Answer, Kind
from models.contracts.errors import InputError
from models.contracts.incident import Incident
from models.contracts.scalars import EventId
from models.contracts.verdict import PERSON, Verdict

State = Literal["waiting", "claimed", "answered", "superseded"]

_LONGEST_ID = 1024  # bytes; an index of PostgreSQL takes 2704
_MOST_NAMED = 20  # events of which nothing but the id is known
_MOST_REVISION: Final = (1 << 63) - 2  # a column takes one more, and an answer needs that


class Asking(Struct, frozen=True):
    """A record that a person is to look at."""

    id: str
    kind: Kind
    revision: int
    record: bytes
    label: str
    confidence: float
    source: str
    gateway: str | None
    gravity: int


class Settling(Struct, frozen=True):
    """A record that needs no person, and may supersede one that does."""

    id: str
    kind: Kind
    revision: int


class Item(Struct, frozen=True, kw_only=True):
    """A row of the queue; of what is answered, with the answer."""

    id: str
    kind: Kind
    revision: int
    settled: int
    state: State
    record: bytes
    label: str
    confidence: float
    source: str
    gateway: str | None
    gravity: int
    waiting_since_ms: int
    claimed_by: str | None
    claimed_until_ms: int | None
    answer: str | None
    answered_by: str | None
    answered_at_ms: int | None
    note: str | None
    answer_revision: int | None
    published_at_ms: int | None
    unpublishable: str | None

    @property
    def verdict(self) -> Verdict:
        """The verdict; of an incident its gravest one."""
        return _gravest(self.incident) if self.kind == "incident" else wire.decode_verdict(self.record)

    @property
    def incident(self) -> Incident:
        """The incident; where it has no verdict, with one that says what is known of those it had."""
        return _shown(wire.decode_incident(self.record))

    @property
    def text(self) -> str:
        """What was seen; of an incident its first events, one per line."""
        if self.kind == "incident":
            return "\n".join(verdict.text for verdict in wire.decode_incident(self.record).verdicts)
        return self.verdict.text

    @property
    def labels(self) -> tuple[str, ...]:
        """What it may be answered with: the task's labels, in its order."""
        return labels_of(self.verdict)

    @property
    def next_revision(self) -> int:
        """That of a person's verdict on it, above all that was said."""
        return max(PERSON, self.revision + 1, self.settled + 1, (self.answer_revision or 0) + 1)


def read(payload: bytes) -> Asking | Settling | None:
    """Read what was delivered; nothing is what neither asks for a person nor can supersede anything.

    Of the routes only `review` asks for a person: what is escalated has the larger model still before it, and nobody
    looks at what is unsure. An incident asks for one until it is withdrawn.

    Raises:
        InputError: it is neither a verdict nor an incident, or none that a database can keep.
    """
    record = wire.decode_delivered(payload)
    if len(record.id.encode()) > _LONGEST_ID:
        raise InputError(f"found an id of {len(record.id.encode())} bytes, wanted at most {_LONGEST_ID}")
    if record.revision > _MOST_REVISION:
        raise InputError(f"found revision {record.revision}, wanted at most {_MOST_REVISION}")
    kind: Kind = "incident" if isinstance(record, Incident) else "event"
    asks = record.state != "withdrawn" if isinstance(record, Incident) else record.route == "review"
    if not asks:
        return Settling(record.id, kind, record.revision) if record.revision else None
    verdict = _gravest(_shown(record)) if isinstance(record, Incident) else record
    return Asking(
        record.id,
        kind,
        record.revision,
        payload,
        verdict.label,
        verdict.confidence,
        verdict.source,
        verdict.gateway,
        _gravity(verdict),
    )


def answer_of(item: Item) -> Answer:
    """Return what a person said of an answered item."""
    verdict = item.verdict
    return Answer(
        id=EventId(item.id),
        kind=item.kind,
        text=item.text,
        label=item.answer or "",
        by=item.answered_by or "",
        at_ms=item.answered_at_ms or 0,
        note=item.note or "",
        revision=item.answer_revision or 0,
        model_label=verdict.label,
        confidence=verdict.confidence,
        route=verdict.route,
        release=verdict.release,
        policy=verdict.policy,
        source=verdict.source,
        gateway=verdict.gateway,
        cached=verdict.cached,
    )


def answered_verdict(item: Item) -> Verdict:
    """Return the verdict that says what the person said, and for the rest what the overruled one did."""
    verdict = item.verdict
    label = item.answer or ""
    return replace(
        verdict,
        label=label,
        confidence=1.0,
        probabilities={name: float(name == label) for name in labels_of(verdict)},
        route="accepted",
        revision=item.answer_revision or 0,
        reason="",
        cached=None,
    )


def labels_of(verdict: Verdict) -> tuple[str, ...]:
    """Return the labels of the task that a verdict is of, in the task's order: the mildest first."""
    return tuple(dict.fromkeys([*verdict.probabilities, verdict.label]))


def _gravity(verdict: Verdict) -> int:
    return labels_of(verdict).index(verdict.label)


def _gravest(incident: Incident) -> Verdict:
    return max(incident.verdicts, key=_gravity)


def _shown(incident: Incident) -> Incident:
    """Return an incident that has a verdict to look at.

    Its first verdicts may all have been taken back, and of those that count now only the ids be known. It goes on, and
    has to end, all the same.
    """
    if incident.verdicts:
        return incident
    if not incident.labels:
        raise InputError(f"incident {incident.id}: found no verdicts and no labels, wanted what a person is to look at")
    commonest_last = sorted(incident.labels, key=lambda name: incident.labels[name])
    named = incident.more[:_MOST_NAMED]
    stand_in = Verdict(
        id=named[0] if named else EventId(incident.id),
        text=f"of {incident.count} events no text is here: {', '.join(named) or 'nor an id'}",
        label=commonest_last[-1],
        confidence=0.0,
        probabilities=dict.fromkeys(commonest_last, 0.0),
        label_mass=0.0,
        fields={},
        route="review",
        release="unknown",
        policy=1,
        source=incident.rule,
        received_at_ms=incident.first_ms,
        gateway=next(iter(incident.gateways), None),
    )
    return replace(incident, verdicts=(stand_in,))
