"""A sink in memory that takes part in the recovery commit, as every real one does."""

from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition


class MemorySink(FixedPartitionedSink):
    """Keeps what it gets, over runs: `lists` as they came, `records` one after the other."""

    def __init__(self) -> None:
        self.lists: list[list] = []

    @property
    def records(self) -> list:
        return [record for records in self.lists for record in records]

    def list_parts(self) -> list[str]:
        return ["memory"]

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> "_Part":
        return _Part(self.lists)


class _Part(StatefulSinkPartition):
    def __init__(self, lists: list[list]) -> None:
        self._lists = lists

    def write_batch(self, values: list[list]) -> None:
        self._lists.extend(values)

    def snapshot(self) -> None:
        return None
