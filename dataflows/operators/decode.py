"""Raw records in; events, answers of the centre, and dead letters with their reasons, out."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Literal, Protocol, cast

import msgspec
from bytewax import operators as op
from bytewax.dataflow import Stream, operator
from msgspec import Struct
from msgspec.structs import replace

from dataflows.observer import Observer
from models.contracts.errors import InputError
from models.contracts.event import DeadLetter, Event, full_id, is_of
from models.contracts.scalars import EventId
from models.contracts.verdict import CENTRAL, Verdict
from models.contracts.wire import decode_verdict
from models.header import split_all


class Records(Protocol):
    """What every source hands over: records that came together. One item of the flow is one of these."""

    @property
    def source(self) -> str:
        """The name of the source in the configuration."""

    @property
    def received_at_ms(self) -> int:
        """When they came, by the gateway's clock."""

    @property
    def records(self) -> Sequence[bytes]:
        """As they came, without framing."""

    @property
    def ids(self) -> Sequence[str]:
        """One per record: the same for the same record after any crash."""

    @property
    def topics(self) -> Sequence[str]:
        """One per record, of the broker that they came by; or none at all."""

    @property
    def keys(self) -> Sequence[bytes | None]:
        """One per record of Kafka's; or none at all."""

    @property
    def headers(self) -> Sequence[tuple[tuple[str, bytes], ...]]:
        """Likewise."""


class Reading(Struct, frozen=True, kw_only=True):
    """How the records of one source are read.

    Of kind `questions` they are verdicts of gateways, whose events are to be judged anew; of kind `answers` they are
    verdicts of the centre on events of this gateway, and go on as they are; of kind `verdicts`, on events of anybody.
    """

    kind: Literal["events", "questions", "answers", "verdicts"] = "events"
    gateway: str = ""  # that the events are of; of questions, who asks says it himself
    labels: tuple[str, ...] = ()  # of questions: ours, for an answer of another task would supersede all the same
    max_bytes: int = 8192  # of the text; the rest is cut off and the event is marked
    text_path: str = ""  # `a.b.c` into a JSON record; empty: the record is the text
    id_path: str = ""  # where the sender's own id stands; a record without one keeps ours


PLAIN = Reading()
_LONGEST_ID = 128  # bytes; a longer sender's id is not one
_TOPIC_DIGEST_BYTES = 16  # too many for a sender to find a topic that passes for another's
# What stands in place of what cannot be written, and surrogates, which cannot: two ids that differ there would be one.
_UNREADABLE = re.compile("[\ufffd\ud800-\udfff]")
_SURROGATE = re.compile("[\ud800-\udfff]")


class _Text(Struct, frozen=True, gc=False):
    text: str
    id: str
    truncated: bool = False
    replaced: bool = False


class _Origin(Struct, frozen=True, gc=False):
    """Who sent a record, for the ids that senders give: each of them counts for itself."""

    own_id: str
    source: str
    topic: str | None

    def of(self, sent: str | int) -> str:
        """Return the id of the event that this sender calls `sent`.

        Behind our origin and apart from our numbers: no sender can name an event of another source or topic. A name
        has no `/`, so nothing that is sent reads as another source or kind; 17 and "17" are two ids, as they are to
        the sender.
        """
        digest = blake2b((self.topic or "").encode(), digest_size=_TOPIC_DIGEST_BYTES).hexdigest()
        kind = "string" if isinstance(sent, str) else "number"
        return f"{self.own_id.partition('.')[0]}.id/{self.source}/{digest}/{kind}/{sent}"


class _Refused(Struct, frozen=True, gc=False):
    reason: str
    detail: str


class Decoded(Struct, frozen=True):
    """What became of records."""

    events: list[Event]
    letters: list[DeadLetter]
    answers: list[Verdict]


@dataclass(frozen=True)
class DecodedStreams:
    """Lists of events, of answers, and of dead letters; no list is empty."""

    events: Stream[list[Event]]
    answers: Stream[list[Verdict]]
    letters: Stream[list[DeadLetter]]


@operator
def decode(step_id: str, up: Stream[Records], readings: Mapping[str, Reading], observer: Observer) -> DecodedStreams:
    """Part records into events, answers and dead letters; `readings` says how, by source."""

    def step(batches: list[Records]) -> list[Decoded]:
        whole = Decoded([], [], [])
        for batch in batches:
            observer.arrived(batch.source, len(batch.records), batch.received_at_ms)
            decode_into(whole, batch, readings.get(batch.source, PLAIN))
        if whole.letters:
            observer.buried(whole.letters)
        return [whole]

    # Batches that the source hands over together become one list: the classifier gains by what it sees at once.
    parted = op.flat_map_batch("part", up, step)
    return DecodedStreams(
        events=op.filter_map("events", parted, lambda decoded: decoded.events or None),
        answers=op.filter_map("answers", parted, lambda decoded: decoded.answers or None),
        letters=op.filter_map("letters", parted, lambda decoded: decoded.letters or None),
    )


def decode_records(batch: Records, reading: Reading = PLAIN) -> Decoded:
    """Return an event or a dead letter for each record, each in the order of arrival."""
    whole = Decoded([], [], [])
    decode_into(whole, batch, reading)
    return whole


def decode_into(whole: Decoded, batch: Records, reading: Reading) -> None:
    """Add an event, an answer or a dead letter for each record to what earlier batches became."""
    if reading.kind != "events":
        _take_verdicts(whole, batch, reading)
        return
    topics: Sequence[str | None] = batch.topics or [None] * len(batch.records)
    texts = None if reading.text_path else _plain_texts(batch.records, reading.max_bytes)
    if texts is not None:
        whole.events.extend(_events(batch, batch.ids, texts, topics, reading.gateway))
        return
    for index, (raw, own_id, topic) in enumerate(zip(batch.records, batch.ids, topics, strict=True)):
        origin = _Origin(own_id, batch.source, topic)
        found = _read_json(raw, reading, origin) if reading.text_path else _read_text(raw, own_id, reading)
        if isinstance(found, _Text):
            (event,) = _events(batch, [found.id], [found.text], [topic], reading.gateway)
            whole.events.append(replace(event, truncated=found.truncated, replaced=found.replaced))
        else:
            whole.letters.append(_letter(batch, index, found))


def _plain_texts(records: Sequence[bytes], max_bytes: int) -> list[str] | None:
    """Decode a batch in which nothing needs a second look, as most do; None where something does."""
    if max(map(len, records), default=0) > max_bytes:
        return None
    try:
        texts = [raw.decode() for raw in records]
    except UnicodeDecodeError:
        return None
    return None if any(map(str.isspace, texts)) or not all(texts) else texts


def _take_verdicts(whole: Decoded, batch: Records, reading: Reading) -> None:
    for index, raw in enumerate(batch.records):
        try:
            verdict = decode_verdict(raw)
        except InputError as error:
            whole.letters.append(_letter(batch, index, _Refused("not-a-verdict", str(error))))
            continue
        if reading.kind == "questions":
            refused = _no_question(verdict, reading.labels)
            if refused is None:
                whole.events.append(_asked(verdict))
            else:
                whole.letters.append(_letter(batch, index, refused))
        elif reading.kind == "verdicts" or verdict.gateway == reading.gateway:
            whole.answers.append(verdict)
        else:
            found = f"for the events of gateway `{verdict.gateway}`, wanted `{reading.gateway}`"
            whole.letters.append(_letter(batch, index, _Refused("not-our-answer", found)))


def _no_question(verdict: Verdict, labels: Sequence[str]) -> _Refused | None:
    """Return why nobody may ask this of us; None where it is a question."""
    if verdict.revision >= CENTRAL:  # a gateway that sends everything would ask us what we said ourselves
        return _Refused("not-a-question", f"revision {verdict.revision}, wanted one of a gateway's, below {CENTRAL}")
    if verdict.gateway is None or not is_of(verdict.gateway, verdict.id):
        return _Refused("not-a-question", f"id `{verdict.id}`, which is none of gateway `{verdict.gateway}`")
    if labels and verdict.label not in labels:
        return _Refused("of-another-task", f"label `{verdict.label}`, and ours are {list(labels)}; look at `engine`")
    return None


def _asked(verdict: Verdict) -> Event:
    """Return the event of a gateway's verdict, to be judged as if it came here first, under its own id."""
    (header,) = split_all([verdict.text], verdict.received_at_ms)
    return Event(
        id=verdict.id,
        source=verdict.source,
        received_at_ms=verdict.received_at_ms,
        text=verdict.text,
        body=header.body,
        occurred_at_ms=verdict.occurred_at_ms,
        host=verdict.host,
        app=verdict.app,
        severity=verdict.severity,
        truncated=verdict.truncated,
        replaced=verdict.replaced,
        topic=verdict.topic,
        gateway=verdict.gateway,
        revision=CENTRAL,
    )


def _events(
    batch: Records, ids: Sequence[str], texts: Sequence[str], topics: Sequence[str | None], gateway: str
) -> list[Event]:
    source, received_at_ms = batch.source, batch.received_at_ms
    headers = split_all(texts, received_at_ms)
    if gateway:
        ids = [full_id(gateway, own_id) for own_id in ids]
    return [
        Event(
            id=event_id,
            source=source,
            received_at_ms=received_at_ms,
            text=text,
            body=header.body,
            occurred_at_ms=header.occurred_at_ms,
            host=header.host,
            app=header.app,
            severity=header.severity,
            topic=topic,
            gateway=gateway or None,
        )
        for event_id, text, topic, header in zip(cast("Sequence[EventId]", ids), texts, topics, headers, strict=True)
    ]


def _letter(batch: Records, index: int, refused: _Refused) -> DeadLetter:
    return letter_of(batch, index, refused.reason, refused.detail)


def letter_of(batch: Records, index: int, reason: str, detail: str) -> DeadLetter:
    """Return the dead letter of one record of a batch, with all that came with it."""
    return DeadLetter(
        id=EventId(batch.ids[index]),
        source=batch.source,
        received_at_ms=batch.received_at_ms,
        reason=reason,
        detail=detail,
        raw=batch.records[index],
        topic=batch.topics[index] if batch.topics else None,
        key=batch.keys[index] if batch.keys else None,
        headers=batch.headers[index] if batch.headers else (),
    )


def _read_text(raw: bytes, own_id: str, reading: Reading) -> _Text | _Refused:
    truncated = len(raw) > reading.max_bytes
    text, replaced = _decoded(_cut(raw, reading.max_bytes) if truncated else raw)
    return _Text(text, own_id, truncated, replaced) if text and not text.isspace() else _EMPTY


def _read_json(raw: bytes, reading: Reading, origin: _Origin) -> _Text | _Refused:
    # Decoded first: msgspec would refuse a whole record for one bad byte, and we mark it, as everywhere.
    record, replaced = _decoded(raw)
    try:
        payload = _payload(record)
    except (msgspec.DecodeError, RecursionError) as error:
        return _Refused("not-json", str(error))
    text = _at(payload, reading.text_path)
    if not isinstance(text, str):
        found = "nothing" if text is None else type(text).__name__
        return _Refused("no-text-at-path", f"`{reading.text_path}`: found {found}, wanted a string")
    if not text or text.isspace():
        return _EMPTY
    try:
        encoded = text.encode()
    except UnicodeEncodeError:
        text, replaced = _SURROGATE.sub("\ufffd", text), True
        encoded = text.encode()
    event_id = _id_at(payload, reading.id_path, origin) if reading.id_path else origin.own_id
    if len(encoded) <= reading.max_bytes:
        return _Text(text, event_id, replaced=replaced)
    return _Text(_cut(encoded, reading.max_bytes).decode(), event_id, truncated=True, replaced=replaced)


def _payload(record: str) -> Any:
    """Read JSON as devices send it: half of a character (`"\\ud83d"`, cut in two) and numbers beyond any double too.

    Raises:
        msgspec.DecodeError: it is none.
        RecursionError: it is too deep.
    """
    try:
        return msgspec.json.decode(record)
    except msgspec.DecodeError as error:
        try:
            return _TOLERANT.decode(record)
        except ValueError:
            raise error from None  # which says more of what is wrong


def _refuse(constant: str) -> None:
    raise ValueError(f"`{constant}` is no JSON")


# A number of so many digits is nothing that we look for, and Python refuses to read it whole.
_TOLERANT = json.JSONDecoder(
    parse_constant=_refuse, parse_int=lambda digits: int(digits) if len(digits) <= _LONGEST_ID else float(digits)
)


def _decoded(raw: bytes) -> tuple[str, bool]:
    """Return the text, and whether bytes in it had to be replaced."""
    try:
        return raw.decode(), False
    except UnicodeDecodeError:
        return raw.decode("utf-8", "replace"), True


_EMPTY = _Refused("empty", "nothing but white space")


def _cut(raw: bytes, most: int) -> bytes:
    """Return at most `most` bytes, without the beginning of a character that would be cut in two."""
    end = most
    while end > most - 3 and end > 0 and raw[end] & 0xC0 == 0x80:  # RFC 3629: a following byte
        end -= 1
    return raw[:end]


def _at(payload: Any, path: str) -> Any:
    for key in path.split("."):
        if not isinstance(payload, dict):
            return None
        payload = payload.get(key)
    return payload


def _id_at(payload: Any, path: str, origin: _Origin) -> str:
    found = _at(payload, path)
    if isinstance(found, bool) or not isinstance(found, (str, int)):
        return origin.own_id
    written = str(found)
    if not written or _UNREADABLE.search(written) or len(written.encode()) > _LONGEST_ID:
        return origin.own_id
    return origin.of(found)
