"""Dead letters into their topic. One that it never takes whole goes there cut, and holds up none of those behind it."""

from collections.abc import Sequence

from msgspec.structs import replace

from dataflows.connectors.courier import Carrier, Refusal
from models.contracts.errors import UnavailableError
from models.contracts.event import DeadLetter
from models.contracts.wire import decode_dead_letter, encode

_KEPT_BYTES = 16 << 10  # of a record whose letter the topic does not take whole


def cut(letter: DeadLetter) -> DeadLetter:
    """Return a letter with the beginning of its record, and without what came beside that where it is long."""
    beside = [*letter.headers, ("", letter.key or b"")]
    is_long = sum(len(name.encode()) + len(value) for name, value in beside) > _KEPT_BYTES
    kept = replace(letter, key=None, headers=()) if is_long else letter
    raw = letter.raw[:_KEPT_BYTES]
    detail = f"{letter.detail}; of its {len(letter.raw)} bytes the first {len(raw)} are here"
    return replace(kept, raw=raw, detail=f"{detail}, without key and headers" if is_long else detail)


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
