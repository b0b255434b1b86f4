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
from models.contracts.event import DeadLetter, is_of
from models.contracts.policy import Route
from models.contracts.scalars import EventId
from models.contracts.verdict import CENTRAL
from models.contracts.wire import decode_verdict, encode

QUESTIONS: tuple[Route, ...] = ("escalated", "unsure")
"""Routes of verdicts that are questions: the gateway doubts them, or could ask nobody when it made them."""

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
        whole.letters.append(_letter(request, line, "not-a-verdict", str(error), now_ms))
        return
    if verdict.gateway != request.gateway:
        found = f"of gateway `{verdict.gateway}`, sent by `{request.gateway}`"
        whole.letters.append(_letter(request, line, "of-another-gateway", found, now_ms))
        return
    if not is_of(request.gateway, verdict.id):
        found = f"id `{verdict.id}`, which is none of gateway `{request.gateway}`"
        whole.letters.append(_letter(request, line, "not-a-gateways-id", found, now_ms))
        return
    if verdict.revision >= CENTRAL:
        found = f"revision {verdict.revision}; a gateway's are below {CENTRAL}"
        whole.letters.append(_letter(request, line, "not-a-gateways-revision", found, now_ms))
        return
    key = _key(verdict.id)
    whole.records.append(Outgoing(names.verdicts, key, line))
    if verdict.route in QUESTIONS:
        whole.records.append(Outgoing(names.questions, key, line))


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
