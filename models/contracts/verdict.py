"""An opinion turned into a decision, and which release and policy made it."""

from typing import Final

from msgspec import Struct

from models.contracts.policy import Route
from models.contracts.scalars import Count, EventId, LabelName, Name, Number, Probability, UnixMillis

CENTRAL: Final = 1000
"""Revisions from here on are the centre's: they supersede whatever a gateway has said, or says later."""

PERSON: Final = 1_000_000
"""Revisions from here on are people's, and supersede both."""


class Verdict(Struct, frozen=True, tag="verdict/1", gc=False):
    """One per event; a repeat has the same `id` and `revision`, so that whoever receives it can drop it.

    `id, text, label, confidence, probabilities, label_mass, fields, route, release, policy` are the contract of
    `python -m edge classify`; the rest says where the event came from. `confidence` is the probability of `label`.
    """

    id: EventId
    text: str
    label: LabelName
    confidence: Probability
    probabilities: dict[str, float]
    label_mass: Probability
    fields: dict[str, tuple[str, ...]]
    route: Route
    release: str  # `<name>-<number>`
    policy: Number
    source: Name
    received_at_ms: UnixMillis
    occurred_at_ms: UnixMillis | None = None
    host: str | None = None
    app: str | None = None
    severity: Count | None = None
    truncated: bool = False
    replaced: bool = False
    topic: str | None = None
    cached: str | None = None  # the cache entry that answered; its text by `python -m edge cache`
    revision: Count = 0  # of two verdicts with one id the higher stands
    gateway: Name | None = None  # that saw the event
    reason: str = ""  # why no model said anything of it, where none did
    context: dict[str, str] = {}  # what was known of its asset or address
