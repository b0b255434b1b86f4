"""What an operator may ask about the verdict cache, and the answers: of one at work or of one that was kept. Pure."""

from collections.abc import Mapping
from heapq import nlargest
from typing import Annotated, Literal

from msgspec import Meta, Struct

from dataflows.cache.entry import Entry, Refusal, cut_fields, instance_of
from models.contracts.policy import Policy
from models.contracts.release import Release
from models.contracts.scalars import Number
from models.masking import LONGEST_TEXT, Masked

Sort = Literal["hits", "age", "bound"]

_RATE_UNIT = 1 << 32  # what `Entry.audit_below` counts in
_MOST_CHARACTERS = 4 << 20  # of the templates in one answer: what a gateway may spend on whoever asks
_CHARACTERS_BESIDE = 300  # about so many are the figures of a template


class List(Struct, frozen=True, kw_only=True, tag="list", forbid_unknown_fields=True):
    """Which templates are there? The first `limit` of them: most hits, oldest, or least proven first."""

    limit: Number
    sort: Sort = "hits"
    refused: bool = False  # these only


class Explain(Struct, frozen=True, tag="explain", forbid_unknown_fields=True):
    """What answers an event with this body?"""

    body: Annotated[str, Meta(max_length=LONGEST_TEXT + 1)]


class Forget(Struct, frozen=True, tag="forget", forbid_unknown_fields=True):
    """Forget one template; without a name, all."""

    name: Annotated[str, Meta(min_length=1)] | None


Question = List | Explain | Forget


class Template(Struct, frozen=True, kw_only=True):
    """One template as it stands. Times are seconds since 1970."""

    name: str
    key: str
    state: Literal["answers", "learning", "doubtful", "expired", "refused"]  # doubtful: it may not answer
    since: float
    reason: str = ""  # why it is refused; the rest is of those that are not
    label: str = ""
    confidence: float | None = None  # of the least sure witness
    witnesses: int = 0  # while it learns: so many of `wanted`
    wanted: int = 0
    hits: int = 0
    audits: int = 0
    audited_at: float | None = None
    audit_rate: float | None = None
    bound: float | None = None  # of the share of its hits that are wrong, at 95 %


class Listing(Struct, frozen=True, tag="listing"):
    """Some templates, and how many there are of the kind that was asked for."""

    templates: list[Template]
    total: int


class Explanation(Struct, frozen=True, kw_only=True, tag="explanation"):
    """What is known of an event's template, and whether it would answer."""

    policy: Number
    enabled: bool  # the cache, by that policy
    masked: Masked | None  # none: the text has no key
    template: Template | None
    witness: bool = False  # the event is one of those that the template is learnt from
    cuttable: bool = True  # the fields of the answer can be cut from the event


class Forgotten(Struct, frozen=True, tag="forgotten"):
    """Whether there was anything of that name."""

    known: bool


class Problem(Struct, frozen=True, tag="problem"):
    """Why there is no answer, as a sentence."""

    words: str


Answer = Listing | Explanation | Forgotten | Problem


class Terms(Struct, frozen=True):
    """What decides what an entry is worth, besides itself."""

    release: Release
    policy: Policy
    now: float  # in seconds since 1970


def listing(asked: List, entries: Mapping[str, Entry], refusals: Mapping[str, Refusal], terms: Terms) -> Listing:
    """Return the templates that were asked for, as many as an answer may hold."""
    known: list[tuple[str, Entry | Refusal]] = list(refusals.items())
    if not asked.refused:
        known += entries.items()
    templates: list[Template] = []
    room = _MOST_CHARACTERS
    for key, found in nlargest(asked.limit, known, key=lambda item: _rank(item[1], asked.sort)):
        room -= len(key) + _CHARACTERS_BESIDE
        if room < 0:
            break
        templates.append(_template(key, found, terms))
    return Listing(templates, len(known))


def explanation(body: str, masked: Masked | None, found: Entry | Refusal | None, terms: Terms) -> Explanation:
    """Return what is known of an event's template."""
    entry = found if isinstance(found, Entry) else None
    return Explanation(
        policy=terms.policy.number,
        enabled=terms.policy.cache.enabled,
        masked=masked,
        template=_template(masked.key, found, terms) if masked is not None and found is not None else None,
        witness=entry is not None and instance_of(body) in entry.instances,
        cuttable=entry is None or masked is None or cut_fields(entry, body, masked) is not None,
    )


def _rank(found: Entry | Refusal, sort: Sort) -> tuple[float, float]:
    """Return what the first of a listing has most of; of two that are equal, the newer is first."""
    if sort == "age":
        return -found.since, 0.0
    if isinstance(found, Refusal):
        return -1.0, found.since
    if sort == "bound":
        return found.bound if found.answers else 0.0, found.since
    return found.hits, found.since


def _template(key: str, found: Entry | Refusal, terms: Terms) -> Template:
    if isinstance(found, Refusal):
        return Template(name=found.name, key=key, state="refused", since=found.since, reason=found.reason)
    rules, task = terms.policy.cache, terms.release.task
    label = task.label_names[found.label]
    return Template(
        name=found.name,
        key=key,
        state=_state(found, label, terms),
        since=found.since,
        label=label,
        confidence=found.confidence,
        witnesses=len(found.instances),
        wanted=rules.ask_first_grave if label in task.fields_for else rules.ask_first,
        hits=found.hits,
        audits=found.audits,
        audited_at=found.audited_at or None,
        audit_rate=found.audit_below / _RATE_UNIT if found.answers else None,
        bound=found.bound if found.answers else None,
    )


def _state(entry: Entry, label: str, terms: Terms) -> Literal["answers", "learning", "doubtful", "expired"]:
    policy, rules = terms.policy, terms.policy.cache
    if terms.now - entry.since > rules.max_age_s or terms.now - entry.used_at > rules.max_idle_s:
        return "expired"  # it is dropped when its next event comes
    # Not by `entry.sure`, which is of earlier thresholds until its next event comes.
    sure = entry.confidence >= policy.accepts_from(label) and entry.answer.label_mass >= policy.mass_floor
    if not sure and (not rules.doubtful or policy.doubtful == "unsure"):
        return "doubtful"
    return "answers" if entry.answers else "learning"
