"""The entries of a cache: as many as there is room for, and those that are needed most.

A new entry stands on probation, in a fifth of the room. It leaves that by being hit more often than the one that it
would displace, the one among the proven that was needed longest ago. So who fills the cache with templates of his own
turns over a fifth of it (segmented LRU: Karedla et al. 1994, with admission by frequency as in TinyLFU: Einziger 2017).
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import chain
from sys import getsizeof

from dataflows.cache.entry import Entry

_PROVEN_SHARE = 0.8
_FADES_AFTER = 10  # hits for every entry: then each weighs half, or what was busy last week would stay for ever


class Shelf:
    """Used by one thread; others may read `items`."""

    def __init__(self) -> None:
        self._proven: OrderedDict[str, Entry] = OrderedDict()
        self._probation: OrderedDict[str, Entry] = OrderedDict()
        self._most = self._most_proven = self._most_bytes = 0
        self._bytes = 0  # of the keys, which strangers may make as long as an event
        self._hits_since_fading = 0

    def __len__(self) -> int:
        return len(self._proven) + len(self._probation)

    def limit(self, entries: int, key_bytes: int) -> int:
        """Hold no more than that from now on; return how many are let go of."""
        self._most, self._most_bytes = entries, key_bytes
        self._most_proven = int(entries * _PROVEN_SHARE)
        while len(self._proven) > self._most_proven:
            self._probation.update([self._proven.popitem(last=False)])
        return self._make_room()

    def get(self, key: str) -> Entry | None:
        return self._proven.get(key) or self._probation.get(key)

    def items(self) -> Iterator[tuple[str, Entry]]:
        """Return keys and entries as they are now, the most lately used last. Any thread may call this."""
        yield from list(self._probation.items())
        yield from list(self._proven.items())

    def add(self, key: str, entry: Entry) -> int:
        """Take a new entry on probation; return how many others are let go of."""
        self._probation[key] = entry
        self._bytes += getsizeof(key)
        return self._make_room()

    def restore(self, kept: Sequence[tuple[str, Entry]]) -> None:
        """Take over what `items` of another process said, the latest of it, as far as there is room."""
        for key, entry in kept[-self._most :]:
            self.add(key, entry)
        proven = [key for key, entry in self._probation.items() if entry.weight]
        for key in proven[-self._most_proven :] if self._most_proven else ():
            self._proven[key] = self._probation.pop(key)

    def hit(self, key: str, entry: Entry) -> None:
        """Count a hit, by which an entry keeps its place or earns one."""
        entry.weight += 1
        self._hits_since_fading += 1
        if self._hits_since_fading >= self._most * _FADES_AFTER:
            self._fade()
        if key in self._proven:
            self._proven.move_to_end(key)
        elif key in self._probation:  # or it was let go of since
            self._probation.move_to_end(key)
            self._challenge(key, entry)

    def drop(self, key: str) -> None:
        for entries in (self._proven, self._probation):
            if entries.pop(key, None) is not None:
                self._bytes -= getsizeof(key)

    def drop_idle(self, since: float) -> int:
        """Let go of what nobody needed since then, the longest idle first; return how many."""
        idle = 0
        for entries in (self._proven, self._probation):
            while entries and next(iter(entries.values())).used_at < since:
                self.drop(next(iter(entries)))
                idle += 1
        return idle

    def clear(self) -> None:
        self._proven.clear()
        self._probation.clear()
        self._bytes = 0

    def _challenge(self, key: str, entry: Entry) -> None:
        """Give an entry on probation the place of one that is proven, if it has earned it."""
        if len(self._proven) < self._most_proven:
            self._proven[key] = self._probation.pop(key)
            return
        if not self._proven:
            return
        oldest_key, oldest = next(iter(self._proven.items()))
        if entry.weight > oldest.weight:
            del self._proven[oldest_key]
            self._proven[key] = self._probation.pop(key)
            self._probation[oldest_key] = oldest
        else:
            self._proven.move_to_end(oldest_key)  # the next one is challenged next, or this one could shield all others

    def _fade(self) -> None:
        self._hits_since_fading = 0
        for entry in chain(self._proven.values(), self._probation.values()):
            entry.weight //= 2

    def _make_room(self) -> int:
        evicted = 0
        while len(self) > self._most or self._bytes > self._most_bytes:
            key, _ = (self._probation or self._proven).popitem(last=False)
            self._bytes -= getsizeof(key)
            evicted += 1
        return evicted
