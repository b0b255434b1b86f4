"""Several sources of one kind as one: their partitions side by side, each under its source's name."""

from collections.abc import Mapping
from typing import TypeVar

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition

X = TypeVar("X")
S = TypeVar("S")


class JoinedSource(FixedPartitionedSource[X, S]):
    """The names belong to the recovery store: a source may be added, and one that is taken away is missed."""

    def __init__(self, sources: Mapping[str, FixedPartitionedSource[X, S]]) -> None:
        self._sources = dict(sources)

    def list_parts(self) -> list[str]:
        return [f"{name}/{part}" for name, source in self._sources.items() for part in source.list_parts()]

    def build_part(self, step_id: str, for_part: str, resume_state: S | None) -> StatefulSourcePartition[X, S]:
        name, _, part = for_part.partition("/")
        return self._sources[name].build_part(step_id, part, resume_state)
