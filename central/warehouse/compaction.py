"""Several files of a day as one: in the order of time, without repeats, each row marked whether it stands.

Three steps, each of which may be the last before a crash:

1. What earlier compactions replaced is deleted, once it has been replaced for so long that nobody reads it any more.
2. The rows of all files that count are merged into a file on the local disk.
3. That file is put into the warehouse, with the names of those that went into it. From then on it counts, and they
   do not.

Two that compact one day at the same time make one file, or two whose rows readers compare; nothing is lost.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory
from time import time
from typing import Final

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import structlog
from msgspec import Struct
from pyarrow.fs import copy_files

from central.warehouse.layout import counting, day_of, folder, is_settled, settled_name
from central.warehouse.session import MEMORY_BYTES, REPLACES, SUPERSEDED, connected, replaced_by, scan
from central.warehouse.storage import Found, Storage, is_unfinished, open_storage
from central.warehouse.tables import TABLES, Table, written
from models.contracts.errors import UnavailableError

log = structlog.get_logger()

KEPT_S: Final = 3600.0
"""So long a file that was replaced stays: longer than any query takes."""


# Most ids have one row. Of those that have more each revision stays once, as the copy that readers would choose.
_SEVERAL = """
CREATE TEMP TABLE several AS
SELECT id, revision, min({moment}) AS since, revision < max(max(revision)) OVER (PARTITION BY id) AS surpassed
FROM every SEMI JOIN (SELECT id FROM every GROUP BY id HAVING count(*) > 1) AS found USING (id)
GROUP BY id, revision
"""
_SIZES = """
SELECT epoch_ms({moment}) // 1000 AS second, sum(strlen(text) + 1000)::BIGINT AS size
FROM every GROUP BY ALL ORDER BY ALL
"""
_SLICE = """
SELECT {columns}, coalesce(surpassed, false) AS superseded FROM every LEFT JOIN several USING (id, revision)
WHERE {moment} >= to_timestamp({begin}) AND {moment} < to_timestamp({end}) AND {moment} = coalesce(since, {moment})
  AND hash(id) % {lots} = {lot}
ORDER BY {moment}, id, revision, {copies}
"""
_SORTED_AT_ONCE = 4  # a slice may be so much smaller than the memory
_BATCH_ROWS = 4096
# Of what stands together in a file, and is left out together by a filter.
_GROUP_ROWS = 1 << 17
_GROUP_BYTES = 64 << 20


class Compacted(Struct, frozen=True):
    """What was done about one day."""

    table: str
    day: str
    files: int  # that were merged
    rows: int  # that were left


def compact_all(
    storage: Storage,
    *,
    memory_bytes: int = MEMORY_BYTES,
    scratch: Path | None = None,
    kept_s: float = KEPT_S,
    clock: Callable[[], float] = time,
) -> Iterator[Compacted]:
    """Compact every day that has more than one file, or something to delete; the oldest first.

    Raises:
        UnavailableError: the warehouse is away, or the disk full; what was done stays done.
    """
    for table in TABLES:
        for day in sorted({day for found in storage.files(table.name) if (day := day_of(found.name))}):
            done = compact(storage, table, day, memory_bytes=memory_bytes, scratch=scratch, kept_s=kept_s, clock=clock)
            if done is not None:
                log.info("warehouse_compacted", table=table.name, day=day, files=done.files, rows=done.rows)
                yield done


def compact(
    storage: Storage,
    table: Table,
    day: str,
    *,
    memory_bytes: int = MEMORY_BYTES,
    scratch: Path | None = None,
    kept_s: float = KEPT_S,
    clock: Callable[[], float] = time,
) -> Compacted | None:
    """Make one file of a day's; return None where it is one already.

    Args:
        storage: where the warehouse is.
        table: whose rows.
        day: `2026-01-31`, in UTC.
        memory_bytes: what may be held in memory.
        scratch: where what does not fit there goes, and the merged file until it is whole; else the system's own place.
        kept_s: how long a file stays that has been replaced.
        clock: seconds since 1970.

    Raises:
        UnavailableError: the warehouse is away, or the disk full.
    """
    found = storage.files(folder(table.name, day))
    swept = _sweep(storage, found, clock() - kept_s)
    names = counting((file.name for file in found if file.name not in swept), replaced_by(storage))
    if not names or (len(names) == 1 and is_settled(names[0])):
        return None
    with _room(scratch) as place:
        merged = Path(place) / "merged.parquet"
        near = storage if storage.is_local else _copied(storage, names, place)
        try:
            with connected(memory_bytes, Path(place)) as connection:
                scan(connection, "every", near, table, names)
                rows = _merge(connection, table, names, merged, memory_bytes // _SORTED_AT_ONCE)
        except (duckdb.Error, OSError, pa.ArrowException) as error:
            raise UnavailableError(f"warehouse {storage.url}: {day} cannot be compacted: {error}") from error
        with pa.memory_map(str(merged)) as content:
            storage.put(settled_name(table.name, day, names), content.read_buffer())
    return Compacted(table.name, day, len(names), rows)


@contextmanager
def _room(scratch: Path | None) -> Iterator[str]:
    try:
        made = TemporaryDirectory(prefix="headwater-compaction-", dir=scratch)
    except OSError as error:
        raise UnavailableError(f"{error.filename}: no place to compact in: {error.strerror}") from error
    with made as place:
        yield place


def sliced(sizes: Sequence[tuple[int, int]], most_bytes: int) -> Iterator[tuple[int, int, int]]:
    """Yield from which second to before which, and in how many lots by id, so that each lot holds about so much.

    There is one, but where a single second holds more.
    """
    begin, held = None, 0
    for second, size in sizes:
        if begin is not None and held + size > most_bytes:
            yield begin, second, ceil(held / most_bytes)
            begin, held = None, 0
        begin = second if begin is None else begin
        held += size
    if begin is not None:
        yield begin, sizes[-1][0] + 1, ceil(held / most_bytes)


def _copied(storage: Storage, names: Sequence[str], place: str) -> Storage:
    """Fetch files once that are to be read several times."""
    near = open_storage(place)
    for name in names:
        with storage.telling(f"{name} cannot be read"):
            Path(near.path(name)).parent.mkdir(parents=True, exist_ok=True)
            copy_files(storage.path(name), near.path(name), source_filesystem=storage.filesystem)
    return near


def _sweep(storage: Storage, found: list[Found], before_s: float) -> list[str]:
    """Delete what has long been replaced, and what a crash left long ago; return what was deleted."""
    replaced_names = replaced_by(storage)
    old = [file.name for file in found if file.changed_at_s < before_s]
    replaced = {name for settled in filter(is_settled, old) for name in replaced_names(settled)}
    names = sorted(file.name for file in found if file.name in replaced)  # settled files come last
    names += filter(is_unfinished, old)
    for name in names:
        storage.delete(name)
    return names


def _merge(
    connection: duckdb.DuckDBPyConnection, table: Table, names: Sequence[str], path: Path, most_bytes: int
) -> int:
    """Write the rows of `every` to a file, a slice of the day after the other; return how many."""
    moment = f'"{table.moment}"'
    columns = ", ".join(f'"{column}"' for column in table.schema.names)
    schema = pa.schema([*table.schema, SUPERSEDED])
    connection.execute("SET preserve_insertion_order = false")  # an order is asked for where it matters
    connection.execute(_SEVERAL.format(moment=moment))
    sizes = connection.sql(_SIZES.format(moment=moment)).fetchall()

    def batches() -> Iterator[pa.RecordBatch]:
        for begin, end, lots in sliced(sizes, most_bytes):
            for lot in range(lots):
                query = _SLICE.format(
                    columns=columns, moment=moment, begin=begin, end=end, lots=lots, lot=lot, copies=table.copies
                )
                yield from connection.sql(query).to_arrow_reader(_BATCH_ROWS).cast(schema)

    rows = 0
    with written(schema, str(path)) as file:
        for group in _groups(_once(batches())):
            file.write_table(group)
            rows += group.num_rows
        file.add_key_value_metadata({REPLACES: " ".join(names).encode()})
    return rows


def _once(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Leave out the second of two rows that follow each other with one id and one revision."""
    last_id, last_revision = pa.array([""]), pa.array([-1])
    for batch in batches:
        ids = pa.concat_arrays([last_id, batch["id"]])
        revisions = pa.concat_arrays([last_revision, batch["revision"]])
        yield batch.filter(pc.or_(pc.not_equal(ids[1:], ids[:-1]), pc.not_equal(revisions[1:], revisions[:-1])))
        last_id, last_revision = ids[-1:], revisions[-1:]


def _groups(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Yield what is to stand together: so many rows, or fewer that are long."""
    group: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        group.append(batch)
        rows, size = rows + batch.num_rows, size + batch.nbytes
        if rows >= _GROUP_ROWS or size >= _GROUP_BYTES:
            yield pa.Table.from_batches(group)
            group, rows, size = [], 0, 0
    if group:
        yield pa.Table.from_batches(group)
