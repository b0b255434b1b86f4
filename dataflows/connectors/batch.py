"""What every source hands over: records that came together."""

from msgspec import Struct


class Batch(Struct, frozen=True, gc=False):
    """Records of one source that came together, or a stretch of them; an item of the flow."""

    source: str
    received_at_ms: int
    records: list[bytes]
    ids: list[str]  # one per record, the same after any crash
    topics: list[str] = []  # one per record, or none
    keys: list[bytes | None] = []  # likewise, of Kafka's records
    headers: list[tuple[tuple[str, bytes], ...]] = []  # likewise
