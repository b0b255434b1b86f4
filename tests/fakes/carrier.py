"""A far end in memory that can be cut off, made to hang, or told to refuse."""

from collections.abc import Callable, Sequence
from threading import Condition

from dataflows.connectors.courier import Refusal
from models.contracts.errors import UnavailableError


class FarEnd:
    """What a carrier delivers to; it outlives the carriers, as a real one does."""

    def __init__(self) -> None:
        self._changed = Condition()
        self.received: list[bytes] = []
        self.attempts = 0
        self.closed = 0
        self._mode = "up"
        self.refuse: Callable[[bytes], str] = lambda _payload: ""

    def up(self) -> None:
        self._switch("up")

    def down(self) -> None:
        self._switch("down")

    def hang(self) -> None:
        self._switch("hang")

    def carrier(self) -> "FarEnd":
        return self

    def deliver(self, payloads: Sequence[bytes]) -> Sequence[Refusal]:
        with self._changed:
            self.attempts += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._mode != "hang", timeout=60)
            if self._mode == "down":
                raise UnavailableError("far end: cut off; kept what is to be delivered")
            refusals = [Refusal(at, why) for at, payload in enumerate(payloads) if (why := self.refuse(payload))]
            refused = {refusal.position for refusal in refusals}
            self.received += [payload for at, payload in enumerate(payloads) if at not in refused]
            self._changed.notify_all()
            return refusals

    def close(self) -> None:
        self.closed += 1

    def until(self, true: Callable[[], bool]) -> None:
        """Wait until something that a delivery can change is true; a test fails after 20 s of it."""
        with self._changed:
            assert self._changed.wait_for(true, timeout=20), f"attempts {self.attempts}, received {len(self.received)}"

    def _switch(self, mode: str) -> None:
        with self._changed:
            self._mode = mode
            self._changed.notify_all()
