"""Verdicts on one address, host or source that came close together: one thing to look at, with its events."""

from typing import Literal

from msgspec import Struct

from models.contracts.scalars import Count, EventId, LabelName, Name, UnixMillis
from models.contracts.verdict import Verdict


class Incident(Struct, frozen=True, kw_only=True, tag="incident/1"):
    """What a rule found; of two with one `id` the one of the higher `revision` stands.

    `id` says rule, key and first event, so a replay of the same verdicts has the same ids. Each verdict that joins, is
    taken back or says something else raises the revision by one, and so does the end: a revision is always the same
    incident. An incident is `withdrawn` while fewer verdicts are left of it than its rule asks for.
    """

    id: str
    rule: Name
    key: str  # the address, the host or the source
    revision: Count
    state: Literal["open", "closed", "withdrawn"]
    first_ms: UnixMillis  # when its first event occurred; the senders' clocks, where they can be believed
    last_ms: UnixMillis
    count: Count  # verdicts in it now
    late: Count  # of them came after their place in the order of time
    labels: dict[LabelName, Count]
    gateways: tuple[Name, ...]  # that saw the events
    verdicts: tuple[Verdict, ...]  # the first ones, of long texts a part; later ones where those were taken back
    more: tuple[EventId, ...]  # of further ones the ids
    unnamed: Count  # and how many there are beyond; among these a repeat counts twice
