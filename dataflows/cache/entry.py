"""What is known of one template: who vouched for its answer, what it has answered since, and what audits found."""

from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b

import msgspec
from msgspec import Struct

from dataflows.cache.bound import audits_needed, upper_bound
from dataflows.cache.places import Place, places_of
from models.contracts.opinion import Opinion
from models.contracts.policy import CacheRules
from models.masking import Masked, Span

_NAME_BYTES = 6
_INSTANCE_BYTES = 16
_RATE_UNIT = 1 << 32

Fields = dict[str, tuple[str, ...]]
FieldPlaces = dict[str, tuple[tuple[Place, ...], ...]]
"""For each field, for each of its values, every place where it may be cut."""


class Answer(Struct, frozen=True, array_like=True):
    """What a template is called and what it answers: the opinion of its least sure witness."""

    name: str
    probabilities: tuple[float, ...]
    highest: float  # confidence of the surest witness
    label_mass: float  # the least of all witnesses'
    fields: Fields = {}  # without the values that are copied from a text
    places: FieldPlaces = {}  # where those are copied from

    def to(self, text: str, masks: Sequence[Span]) -> Opinion | None:
        """Return the opinion on an event; None where the places of a value do not say one and the same."""
        fields = self.fields
        if self.places:
            fields = fields.copy()
            for name, values in self.places.items():
                cut = [{place.cut(text, masks) for place in places} for places in values]
                if any(len(found) != 1 for found in cut):
                    return None
                fields[name] = tuple(found.pop() for found in cut)
        return Opinion(probabilities=self.probabilities, label_mass=self.label_mass, fields=fields)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Answer)


class Entry(Struct, kw_only=True, gc=False):
    """A template and its answer. Times are seconds since 1970."""

    packed: bytes  # its `Answer`: as objects, a hundred thousand of them take three times the room
    label: int  # the number of the most probable one
    sure: bool  # whether a verdict by it is accepted
    since: float
    used_at: float
    audited_at: float = 0.0
    hits: int = 0
    weight: int = 0  # its hits, fading: what it has to show for its place in a full cache
    audits: int = 0  # all of which agreed: one that does not ends the entry
    instances: tuple[bytes, ...] = ()  # of its witnesses, until there are enough of them
    answers: bool = False
    audit_below: int = 0  # of 2**32
    decided_by: int = 0  # the number of the thresholds that `sure` is by

    @property
    def answer(self) -> Answer:
        return _decoder.decode(self.packed)

    @property
    def name(self) -> str:
        """What its verdicts call it."""
        return self.answer.name

    @property
    def confidence(self) -> float:
        """The probability of its label, by the least sure witness."""
        return self.answer.probabilities[self.label]

    @property
    def bound(self) -> float:
        """What share of its hits may be wrong, at 95 % confidence."""
        return upper_bound(self.audits, 0)


class Refusal(Struct, frozen=True, gc=False):
    """A template that is never to answer, and why."""

    name: str
    reason: str
    since: float
    by_audit: bool = False  # it had answered by then


def name_of(key: str) -> str:
    """Return what a template is called in verdicts: the same on every gateway."""
    return blake2b(key.encode(), digest_size=_NAME_BYTES).hexdigest()


def instance_of(text: str) -> bytes:
    """Return what tells an event of a template from the others: nobody finds two texts that share it."""
    return blake2b(text.encode(), digest_size=_INSTANCE_BYTES).digest()


def packed(answer: Answer) -> bytes:
    """Return an answer as an entry holds it."""
    return _encoder.encode(answer)


def answer_of(opinion: Opinion, key: str, copied: frozenset[str], text: str, masks: Sequence[Span]) -> Answer | None:
    """Return what a template would answer by the opinion on one event; None where a field cannot be cut from others."""
    fields: Fields = {}
    places: FieldPlaces = {}
    for name, values in opinion.fields.items():
        if name in copied:
            places[name] = tuple(places_of(value, text, masks) for value in values)
        fields[name] = () if name in copied else values
    if not all(map(all, places.values())):
        return None
    return Answer(
        name=name_of(key),
        probabilities=opinion.probabilities,
        highest=max(opinion.probabilities),
        label_mass=opinion.label_mass,
        fields=fields,
        places=places,
    )


def agreed(one: Answer, other: Answer, label: int) -> Answer | None:
    """Return what two events of a template have in common, which have one label; None where their fields differ."""
    if one.fields != other.fields:
        return None
    places: FieldPlaces = {}
    for name, values in one.places.items():
        others = other.places[name]
        if len(values) != len(others):
            return None
        both = tuple(
            tuple(place for place in mine if place in theirs) for mine, theirs in zip(values, others, strict=True)
        )
        if not all(both):
            return None
        places[name] = both
    less_sure = min(one, other, key=lambda answer: answer.probabilities[label])
    return Answer(
        name=one.name,
        probabilities=less_sure.probabilities,
        highest=max(one.highest, other.highest),
        label_mass=min(one.label_mass, other.label_mass),
        fields=one.fields,
        places=places,
    )


def is_tied(answer: Answer) -> bool:
    """Tell whether the label leads by less than its witnesses differ: one more of them, and it may be another.

    The lead is the least sure witness's, over the next label.
    """
    second, first = sorted(answer.probabilities)[-2:]
    return first - second < answer.highest - first


def cut_fields(entry: Entry, text: str, masked: Masked) -> Fields | None:
    """Return the fields of a new event; None where its places do not say one and the same value."""
    opinion = entry.answer.to(text, masked.spans)
    return None if opinion is None else opinion.fields


def audit_rate(entry: Entry, rules: CacheRules, *, grave: bool) -> float:
    """Return the share of its hits that are asked again: the highest of the rates that apply."""
    rate = rules.audit_rate
    if grave:
        rate = max(rate, rules.audit_rate_grave)
    if entry.hits < rules.young_hits:
        rate = max(rate, rules.audit_rate_young)
    needed = audits_needed(rules.bound)
    if entry.audits < needed:
        rate = max(rate, min(1.0, needed / rules.bound_within_hits))
    return rate


@lru_cache(maxsize=64)
def audit_below(rate: float) -> int:
    """Return below which of 2**32 numbers a hit is audited; entries share the few that there are."""
    return int(rate * _RATE_UNIT)
