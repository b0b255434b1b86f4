"""What an engine said lately, by the text that it was asked about.

An engine that batches adds in another order every time, so the same text would have another last digit. What was said
stands: a text that comes again, after a crash for one, has the opinion that it had.
"""

from collections.abc import Mapping
from hashlib import blake2b
from threading import Lock
from typing import Final

from models.contracts.opinion import Opinion

REMEMBERED: Final = 4096
"""So many texts, the oldest of which goes first."""


class Memory:
    """Opinions by their texts' digests, so that long texts take no room; safe to be used from several threads."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = Lock()
        self._opinions: dict[bytes, Opinion] = {}

    def recall(self, text: str) -> Opinion | None:
        return self._opinions.get(_digest(text))

    def remember(self, opinions: Mapping[str, Opinion]) -> None:
        """Keep what was answered; of two answers the first stands."""
        with self._lock:
            for text, opinion in opinions.items():
                if not opinion.unanswered:
                    self._opinions.setdefault(_digest(text), opinion)
            while len(self._opinions) > self._most:
                del self._opinions[next(iter(self._opinions))]


def _digest(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
