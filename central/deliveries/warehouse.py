"""Verdicts, or answers, to the warehouse: a delivery is a Parquet file for each of its days, named by what is in it."""

from collections.abc import Callable, Sequence
from time import time

import pyarrow as pa

from central.warehouse.layout import day_of, is_settled, part_name
from central.warehouse.storage import open_storage
from central.warehouse.tables import TABLES, VERDICTS, Table, lots, parquet
from dataflows.connectors.courier import Limits, Refusal
from dataflows.running.findings import Finding

_EXAMINED = f"{VERDICTS.name}/examined"
_MANY_FILES = 5000  # a few hours' worth
_REQUEST_S = 10.0
_BATCH_PAYLOADS = 20_000
_BATCH_BYTES = 16 << 20  # as JSON; several times that as records and columns


class WarehouseCarrier:
    """Puts one kind of record into the warehouse.

    The same records are always the same file, and those that come again among others are repeats that readers drop.
    """

    def __init__(self, url: str, table: Table = VERDICTS, clock: Callable[[], float] = time) -> None:
        """Take where the warehouse is; nothing is asked of it yet.

        Raises:
            ConfigError: it is neither a folder nor a bucket.
        """
        # The courier makes attempts of its own; and a process that is to end waits for the one that is under way.
        self._storage = open_storage(url, request_s=_REQUEST_S, attempts=1)
        self._table = table
        self._clock = clock

    def deliver(self, payloads: Sequence[bytes]) -> Sequence[Refusal]:
        found, refusals = lots(self._table, payloads)
        for lot in found:
            content = parquet(self._table, lot.records, int(self._clock() * 1000))
            self._storage.put(part_name(self._table.name, lot.day, lot.digest), content)
        return refusals

    def close(self) -> None:
        """Keep nothing open: a file is."""


def gathering(gather_s: float, backlog_bytes: int) -> Limits:
    """Return limits with which few and large files are written: what comes waits on our disk for the next of them.

    The flow does not wait for the warehouse, but for its own disk only, unless the backlog is full.
    """
    return Limits(
        memory_bytes=2 * _BATCH_BYTES,
        backlog_bytes=backlog_bytes,
        batch_bytes=_BATCH_BYTES,
        batch_payloads=_BATCH_PAYLOADS,
        gap_s=gather_s,
        patience_s=0.0,
    )


def examine(url: str) -> Finding:
    """Write, list and delete in the warehouse, and say what is there.

    Raises:
        ConfigError: it is neither a folder nor a bucket.
        UnavailableError: one of these cannot be done.
    """
    storage = open_storage(url)
    storage.put(_EXAMINED, pa.py_buffer(b""))
    storage.delete(_EXAMINED)
    found = [file for table in TABLES for file in storage.files(table.name) if day_of(file.name)]
    days = len({day_of(file.name) for file in found})
    size_mib = sum(file.bytes for file in found) / (1 << 20)
    loose = sum(not is_settled(file.name) for file in found)
    words = f"{storage.url}: can be written; {days} day{'' if days == 1 else 's'}, {size_mib:.1f} MiB"
    if loose > _MANY_FILES:
        words += f"; {loose} small files make queries slow: `python -m central compact`"
        return Finding("warehouse", "note", words)
    return Finding("warehouse", "ok", words)
