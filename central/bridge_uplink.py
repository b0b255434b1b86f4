"""What gateways send by MQTT into Kafka's topics: confirmed to each gateway when Kafka has it.

A line is forwarded byte for byte, or, where it is no verdict of that gateway's, put with the dead letters; either way
it counts as received, since to send it again would change nothing.
"""

import re
from collections.abc import Sequence
from hashlib import sha256
from time import time

from msgspec import Struct

from central.dead_letters import cut
from central.topics import Names
from dataflows.connectors.courier import refused_letter
from dataflows.connectors.kafka_publisher import KafkaProducer, Outgoing, reason_of
from dataflows.connectors.mqtt_requests import Request
from dataflows.connectors.uplink import MESSAGE_LINES
from models.contracts.errors import InputError, UnavailableError
from models.contracts.event import LONGEST_ID, DeadLetter, is_of
from models.contracts.policy import Route
from models.contracts.scalars import EventId
from models.contracts.verdict import CENTRAL, Verdict
from models.contracts.wire import decode_verdict, encode

QUESTIONS: tuple[Route, ...] = ("escalated", "unsure")
"""Routes of verdicts that are questions: the gateway doubts them, or could ask nobody when it made them."""

# A day that nobody lived makes a table's partition and an index of its own, and so many stop everybody's deliveries.
_MOST_AHEAD_MS = 24 * 3600 * 1000  # clocks are wrong, and by a time zone where somebody set them by hand
_MOST_BEHIND_MS = 90 * 24 * 3600 * 1000  # a gateway may have been off line for long: as old as dead letters get
_SHOWN = 128  # characters of what a gateway wrote, in what we say of it

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")  # what `Name` means


class Sorted(Struct, frozen=True):
    """What became of the lines of messages."""

    records: list[Outgoing]
    letters: list[DeadLetter]


def into_kafka(requests: Sequence[Request], producer: KafkaProducer, names: Names) -> list[DeadLetter]:
    """Return when Kafka has every line of these messages, and those among them that are dead letters.

    Raises:
        UnavailableError: it is away, or takes not even the dead letters.
    """
    found = sort_lines(requests, names, int(time() * 1000))
    return deliver_or_bury(found.records, found.letters, producer, names)


def deliver_or_bury(
    records: Sequence[Outgoing], letters: Sequence[DeadLetter], producer: KafkaProducer, names: Names
) -> list[DeadLetter]:
    """Return when Kafka has all of these; verdicts that it never takes are among the dead letters that are returned.

    Raises:
        UnavailableError: it is away, or takes not even the dead letters.
    """
    refused = {records[each.position].value: each.reason for each in producer.deliver(records)}
    letters = [*letters, *(refused_letter("kafka", line, reason) for line, reason in refused.items())]
    if letters:
        shorter = [cut(letters[each.position]) for each in producer.deliver(_buried(letters, names))]
        for each in producer.deliver(_buried(shorter, names)):
            raise UnavailableError(
                f"kafka, topic {names.dead_letters}: {each.reason}; raise its `max.message.bytes`; gateways keep what "
                "they have for us"
            )
    return letters


def sort_lines(requests: Sequence[Request], names: Names, now_ms: int) -> Sorted:
    """Part the lines of messages into records for Kafka and dead letters."""
    whole = Sorted([], [])
    for request in requests:
        payload = request.message.payload
        lines = payload.split(b"\n", MESSAGE_LINES)
        if len(lines) > MESSAGE_LINES:
            found = f"a message of more than {MESSAGE_LINES} lines"
            whole.letters.append(_letter(request, payload, "too-many-lines", found, now_ms))
            continue
        for line in lines:
            if line:
                _sort(whole, request, line, names, now_ms)
    return whole


def _sort(whole: Sorted, request: Request, line: bytes, names: Names, now_ms: int) -> None:
    try:
        verdict = decode_verdict(line)
    except InputError as error:
        whole.letters.append(_letter(request, line, "not-a-verdict", _shown(str(error)), now_ms))
        return
    wrong = misfit(verdict, request.gateway, now_ms)
    if wrong is not None:
        whole.letters.append(_letter(request, line, wrong.reason, wrong.found, now_ms))
        return
    key = _key(verdict.id)
    whole.records.append(Outgoing(names.verdicts, key, line))
    if verdict.route in QUESTIONS:
        whole.records.append(Outgoing(names.questions, key, line))


class Misfit(Struct, frozen=True):
    """Why a verdict is not a gateway's to say, and what was found."""

    reason: str
    found: str


def misfit(verdict: Verdict, gateway: str, now_ms: int) -> Misfit | None:
    """Return why a verdict that a gateway sent is not its to say; None where it is. Pure."""
    size = len(verdict.id.encode("utf-8", "surrogatepass"))
    if verdict.gateway != gateway:
        return Misfit("of-another-gateway", f"of gateway `{verdict.gateway}`, sent by `{_shown(gateway)}`")
    if size > LONGEST_ID:
        return Misfit("id-too-long", f"id `{_shown(verdict.id)}` of {size} bytes, wanted {LONGEST_ID} at most")
    if not is_of(gateway, verdict.id):
        return Misfit("not-a-gateways-id", f"id `{_shown(verdict.id)}`, which is none of gateway `{_shown(gateway)}`")
    if verdict.revision >= CENTRAL:
        return Misfit("not-a-gateways-revision", f"revision {verdict.revision}; a gateway's are below {CENTRAL}")
    return _misdated(verdict.received_at_ms - now_ms)


def _misdated(ahead_ms: int) -> Misfit | None:
    if ahead_ms > _MOST_AHEAD_MS:
        return Misfit("clock-ahead", f"received {ahead_ms} ms from now, wanted {_MOST_AHEAD_MS} at most")
    if -ahead_ms > _MOST_BEHIND_MS:
        return Misfit("too-old", f"received {-ahead_ms} ms ago, wanted {_MOST_BEHIND_MS} at most")
    return None


def _shown(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _letter(request: Request, raw: bytes, reason: str, detail: str, now_ms: int) -> DeadLetter:
    """Return the dead letter of what a gateway sent: the same has the same id, however often it comes."""
    return DeadLetter(
        id=EventId(f"{request.gateway}.{sha256(raw).hexdigest()[:32]}"),
        source="uplink",
        received_at_ms=now_ms,
        reason=reason,
        detail=detail,
        raw=raw,
        topic=request.message.topic,
        gateway=request.gateway if _NAME.fullmatch(request.gateway) else None,
    )


def _buried(letters: Sequence[DeadLetter], names: Names) -> list[Outgoing]:
    found = [(_key(letter.id), encode(letter)) for letter in letters]
    return [Outgoing(names.dead_letters, key, letter, reason_of(letter)) for key, letter in found]


def _key(event_id: str) -> bytes:
    return event_id.encode("utf-8", "surrogatepass")
