"""Dead letters into their topic. One that it never takes whole goes there cut, and holds up none of those behind it."""

from collections.abc import Sequence
from hashlib import sha256

from msgspec.structs import replace

from dataflows.connectors.courier import Carrier, Refusal
from models.contracts.errors import UnavailableError
from models.contracts.event import LONGEST_ID, DeadLetter
from models.contracts.scalars import EventId
from models.contracts.wire import decode_dead_letter, encode

_KEPT_BYTES = 16 << 10  # of a record whose letter the topic does not take whole
_KEPT_CHARACTERS = 1 << 10  # of its other texts, which strangers may have made long


def cut(letter: DeadLetter) -> DeadLetter:
    """Return a letter with the beginning of its record, and without what came beside that where it is long.

    It is less than 64 KiB of JSON, whatever came in.
    """
    # As it is written: empty headers and control characters take more room than they have bytes.
    beside = encode(replace(letter, id=EventId(""), detail="", topic=None, raw=b""))
    is_long = len(beside) > _KEPT_BYTES
    raw = letter.raw[:_KEPT_BYTES]
    detail = f"{_shown(letter.detail)}; of its {len(letter.raw)} bytes the first {len(raw)} are here"
    is_short_of = is_long or len(raw) < len(letter.raw)
    return replace(
        letter,
        id=_short(letter.id),
        detail=f"{detail}, without key and headers" if is_long else detail,
        raw=raw,
        # The beginning of a topic is another topic.
        topic=letter.topic if len(letter.topic or "") <= _KEPT_CHARACTERS else None,
        key=None if is_long else letter.key,
        headers=() if is_long else letter.headers,
        cut_from=letter.cut_from or (_size(letter) if is_short_of else 0),
    )


def _size(letter: DeadLetter) -> int:
    beside = (("", letter.key or b""), *letter.headers)
    return len(letter.raw) + sum(len(name.encode()) + len(value) for name, value in beside)


def _short(event_id: EventId) -> EventId:
    whole = event_id.encode("utf-8", "surrogatepass")
    if len(whole) <= LONGEST_ID:
        return event_id
    return EventId(f"{event_id[: LONGEST_ID // 8]}~{sha256(whole).hexdigest()[:32]}")


def _shown(detail: str) -> str:
    return detail if len(detail) <= _KEPT_CHARACTERS else f"{detail[:_KEPT_CHARACTERS]}…"


class DeadLetterCarrier:
    """Carries dead letters by a carrier to their topic, and has none of them refused."""

    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier

    def deliver(self, payloads: Sequence[bytes]) -> Sequence[Refusal]:
        """Return when the topic has every letter, as far as it takes them.

        Raises:
            UnavailableError: it is away, or does not even take one that is cut.
        """
        refused = self._carrier.deliver(payloads)
        shorter = [encode(cut(decode_dead_letter(payloads[each.position]))) for each in refused]
        for each in self._carrier.deliver(shorter) if shorter else ():
            raise UnavailableError(f"dead letters: {each.reason}; raise their topic's `max.message.bytes`")
        return ()

    def close(self) -> None:
        self._carrier.close()
