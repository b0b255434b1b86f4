"""How long to wait before the same thing is tried again: doubling, bounded, with jitter. No clock, no sleep."""

from collections.abc import Iterator
from itertools import repeat
from random import Random

from msgspec import Struct


class Backoff(Struct, frozen=True):
    """Delays between attempts. Jitter keeps a fleet from knocking on a broker's door all at once."""

    first_s: float = 0.5
    most_s: float = 30.0
    jitter: float = 0.25  # the share of each delay that chance takes off
    attempts: int | None = None  # None: for ever

    def delays(self, chance: Random) -> Iterator[float]:
        """Yield one delay per failed attempt; it ends where giving up begins."""
        delay_s = self.first_s
        for _ in repeat(None) if self.attempts is None else repeat(None, self.attempts - 1):
            yield delay_s * (1 - self.jitter * chance.random())
            delay_s = min(delay_s * 2, self.most_s)
