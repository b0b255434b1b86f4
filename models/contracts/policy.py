"""Thresholds, routes and cache rules: small, versioned, changes often."""

import math
from collections.abc import Mapping
from typing import Annotated, Final, Literal, get_args

from msgspec import Meta, Struct, field

from models.contracts.scalars import Count, LabelName, Number, Probability

Route = Literal["accepted", "escalated", "review", "unsure"]
ROUTES: tuple[Route, ...] = ("accepted", "escalated", "review", "unsure")

NEVER: Final = 1.0
"""As a threshold: the label is not accepted, not even at a confidence that was rounded up to 1."""

Mask = Literal["address", "time", "identifier", "number", "port", "counter", "amount"]
MASKS: Final[tuple[Mask, ...]] = get_args(Mask)
"""The kinds of words in which two events with one answer may differ; `models/masking.py` says what is of each kind."""

_Seconds = Annotated[float, Meta(gt=0)]


class CacheRules(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When an earlier answer may stand for an event that is alike; `docs/guides/cache.md`.

    Grave labels are those for which the task reads fields. Of several audit rates that apply the highest counts.
    """

    enabled: bool = True
    doubtful: bool = True  # also answers that are not accepted; never where nobody looks (`doubtful = "unsure"`)
    masks: tuple[Mask, ...] = MASKS  # what two events with one answer may differ in
    known_addresses: tuple[str, ...] = ()  # never masked
    ask_first: Number = 3  # different events of a template that have to agree before it answers
    ask_first_grave: Number = 5
    audit_rate: Probability = 0.01
    audit_rate_grave: Probability = 0.02
    audit_rate_young: Probability = 0.05
    young_hits: Count = 100  # a template with fewer is young
    bound: Probability = 0.0  # of a template's share of wrong hits, at 95 % confidence; 0 asks for none
    bound_within_hits: Number = 100_000  # audits are so frequent that the bound is reached by then
    max_entries: Number = 100_000
    max_key_bytes: Number = 32 << 20  # of their keys, which are as long as events
    max_age_s: _Seconds = 7 * 24 * 3600.0  # then it is learnt anew
    max_idle_s: _Seconds = 24 * 3600.0  # without a hit
    recent_events: Count = 4096  # answered from the cache, kept to be asked again when an audit disagrees
    recent_s: _Seconds = 600.0


Doubtful = Literal["escalated", "review", "unsure"]


class ContextRule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is decided otherwise about events of which all this is known; what is left out stays the policy's."""

    context: Annotated[dict[str, str], Meta(min_length=1)]
    accept_at: Probability | None = None  # for every label that `accept_at_by_label` of this rule does not name
    accept_at_by_label: dict[LabelName, Probability] = field(default_factory=dict)
    doubtful: Doubtful | None = None

    def fits(self, context: Mapping[str, str]) -> bool:
        """Tell whether all that this rule asks for is known of an event."""
        return self.context.items() <= context.items()


class Policy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="policy/1"):
    """From which confidence on a verdict stands by itself, and where the others go.

    A verdict at the threshold is accepted, but for a threshold of 1, which means that the label is never accepted.
    """

    number: Number = 1
    accept_at: Probability = 0.8
    accept_at_by_label: dict[LabelName, Probability] = field(default_factory=dict)  # overrides `accept_at`
    mass_floor: Probability = 0.0  # below this label mass nothing is accepted, however confident
    doubtful: Doubtful = "review"  # where what is not accepted goes
    when: tuple[ContextRule, ...] = ()  # the first that fits an event counts
    cache: CacheRules = CacheRules()

    @property
    def may_be_unsure(self) -> bool:
        """Whether there are events of which nobody looks at what is not accepted."""
        return "unsure" in (self.doubtful, *(rule.doubtful for rule in self.when))

    def accepts_from(self, label: str, rule: ContextRule | None = None) -> float:
        """Return the confidence from which on a verdict with this label is accepted; infinity when it never is."""
        threshold = self.accept_at_by_label.get(label, self.accept_at)
        if rule is not None:
            threshold = rule.accept_at_by_label.get(label, threshold if rule.accept_at is None else rule.accept_at)
        return threshold if threshold < NEVER else math.inf
