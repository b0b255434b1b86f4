"""What the flow tells whoever watches it: counts and batches, as plain calls. Metrics and views stand behind it."""

from collections.abc import Sequence
from typing import Protocol

from models.contracts.event import DeadLetter
from models.contracts.verdict import Verdict


class Observer(Protocol):
    """Told of every batch, in the thread that worked on it; it must not block and must not raise.

    Counts include what a replay after a crash repeats, so they describe work done, not distinct events.
    """

    def arrived(self, source: str, records: int, received_at_ms: int) -> None:
        """The flow took `records` of one source; the oldest was received at that time by the gateway's clock."""

    def repeated(self, source: str, events: int) -> None:
        """Events were dropped because their ids had just been seen."""

    def classified(self, events: int, seconds: float) -> None:
        """One call of the classifier answered for `events` texts."""

    def decided(self, verdicts: Sequence[Verdict]) -> None:
        """Verdicts of one release and one policy, in the order of arrival."""

    def buried(self, letters: Sequence[DeadLetter]) -> None:
        """Records became dead letters."""

    def delivered(self, sink: str, payloads: int) -> None:
        """The far end of a sink acknowledged payloads."""

    def waiting(self, sink: str) -> None:
        """The flow waits for room in a sink's backlog; told again several times a second while it does."""

    def held(self, sink: str, backlog_bytes: int, *, failing: bool) -> None:
        """What a sink holds on disk for its far end, and whether the last attempt failed."""


class Unobserved:
    """The observer of a flow that nobody watches."""

    def arrived(self, source: str, records: int, received_at_ms: int) -> None:
        pass

    def repeated(self, source: str, events: int) -> None:
        pass

    def classified(self, events: int, seconds: float) -> None:
        pass

    def decided(self, verdicts: Sequence[Verdict]) -> None:
        pass

    def buried(self, letters: Sequence[DeadLetter]) -> None:
        pass

    def delivered(self, sink: str, payloads: int) -> None:
        pass

    def waiting(self, sink: str) -> None:
        pass

    def held(self, sink: str, backlog_bytes: int, *, failing: bool) -> None:
        pass
