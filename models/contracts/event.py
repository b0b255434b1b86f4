"""One line or message from one source, with a deterministic id."""

from typing import Final

from msgspec import Struct

from models.contracts.scalars import Count, EventId, Name, UnixMillis

LONGEST_ID: Final = 512
"""Bytes of an event's whole id: of names, numbers, and the 128 bytes that a sender's own name for it may have."""


class Event(Struct, frozen=True, kw_only=True, tag="event/1", gc=False):
    """What arrived, and what a model is to read of it.

    Unknown fields are ignored on purpose: gateways and central upgrade on different days.
    """

    id: EventId
    source: Name  # the name of the source in the configuration
    received_at_ms: UnixMillis  # the gateway's clock
    text: str  # the record as it arrived, decoded and cut to the limit
    body: str  # what a model reads: `text` without time stamp, host name and process id
    occurred_at_ms: UnixMillis | None = None  # the sender's clock: never subtract it from ours
    host: str | None = None
    app: str | None = None
    severity: int | None = None  # RFC 5424 section 6.2.1: 0 emergency … 7 debug
    truncated: bool = False  # the record was longer than the limit
    replaced: bool = False  # invalid UTF-8 became U+FFFD
    topic: str | None = None  # of the broker, that it came by
    gateway: Name | None = None  # which gateway saw it
    revision: Count = 0  # that a verdict on it has; higher where one is asked to supersede another
    context: dict[str, str] = {}  # what is known of its asset or address, by name; nothing of it stands in the event


class DeadLetter(Struct, frozen=True, kw_only=True, tag="dead-letter/1", gc=False):
    """A record that got no verdict, with the reason; whole, unless `cut_from` says otherwise."""

    id: EventId
    source: Name
    received_at_ms: UnixMillis
    reason: Name  # short and countable: `no-text-at-path`, `refused-by-classifier`
    detail: str
    raw: bytes  # base64 in JSON (RFC 4648 section 4)
    topic: str | None = None  # of the broker, that it came by
    gateway: Name | None = None  # which gateway sent it
    key: bytes | None = None  # of a Kafka record, as its headers
    headers: tuple[tuple[str, bytes], ...] = ()
    cut_from: Count = 0  # bytes of the record with its key and headers, where not all are here: it is not put back


def full_id(gateway: str, own_id: str) -> EventId:
    """Return the id, among the events of all gateways, of what one of them calls `own_id`.

    No name has a `~`, so that of no gateway is the beginning of another's ids.
    """
    return EventId(f"{gateway}~{own_id}")


def is_of(gateway: str, event_id: EventId) -> bool:
    """Tell whether a gateway may speak of this event: whoever has it from that gateway asks before it counts."""
    return event_id.startswith(f"{gateway}~")
