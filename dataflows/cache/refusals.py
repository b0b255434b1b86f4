"""Templates that are never to answer. What an audit ended stands apart, so that no flood of others displaces it."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import chain
from sys import getsizeof

from dataflows.cache.entry import Refusal

_MOST = 10_000  # of those that an audit ended, and of the others
_MOST_BYTES = 16 << 20  # of their keys, likewise


class Refusals:
    """Bounded; of each kind those go that were met with longest ago. Used by one thread; others may read `items`."""

    def __init__(self) -> None:
        self._kinds = {True: _Kind(), False: _Kind()}

    def __contains__(self, key: str) -> bool:
        return any(key in kind for kind in self._kinds.values())

    def __len__(self) -> int:
        return sum(map(len, self._kinds.values()))

    def get(self, key: str) -> Refusal | None:
        return next((kind[key] for kind in self._kinds.values() if key in kind), None)

    def items(self) -> Iterator[tuple[str, Refusal]]:
        """Return keys and refusals as they are now. Any thread may call this."""
        return chain.from_iterable(list(kind.items()) for kind in self._kinds.values())

    def add(self, key: str, refusal: Refusal) -> None:
        self.drop(key)
        self._kinds[refusal.by_audit].put(key, refusal)

    def restore(self, kept: Sequence[tuple[str, Refusal]]) -> None:
        """Take over what `items` of another process said."""
        for key, refusal in kept:
            self.add(key, refusal)

    def meet(self, key: str) -> bool:
        """Tell whether a template is refused; one that is stays so for longer."""
        for kind in self._kinds.values():
            if key in kind:
                kind.move_to_end(key)
                return True
        return False

    def drop(self, key: str) -> None:
        for kind in self._kinds.values():
            kind.drop(key)

    def clear(self) -> None:
        self._kinds = {True: _Kind(), False: _Kind()}


class _Kind(OrderedDict[str, Refusal]):
    def __init__(self) -> None:
        super().__init__()
        self._bytes = 0

    def put(self, key: str, refusal: Refusal) -> None:
        self[key] = refusal
        self._bytes += getsizeof(key)
        while len(self) > _MOST or self._bytes > _MOST_BYTES:
            self.drop(next(iter(self)))

    def drop(self, key: str) -> None:
        if self.pop(key, None) is not None:
            self._bytes -= getsizeof(key)
