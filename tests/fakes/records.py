"""Batches of records as any source hands them over."""

from collections.abc import Sequence

from msgspec import Struct


class FakeBatch(Struct, frozen=True):
    source: str
    received_at_ms: int
    records: list[bytes]
    ids: list[str]
    topics: list[str] = []
    keys: list[bytes | None] = []
    headers: list[tuple[tuple[str, bytes], ...]] = []


def batch(
    *records: bytes | str,
    start: int = 0,
    source: str = "hosts",
    received_at_ms: int = 1_700_000_000_000,
    topics: Sequence[str] = (),
) -> FakeBatch:
    """Records numbered from `start`, so that the same number is the same event."""
    raw = [record.encode() if isinstance(record, str) else record for record in records]
    return FakeBatch(source, received_at_ms, raw, [f"o.{start + index}" for index in range(len(raw))], list(topics))
