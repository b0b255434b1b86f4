"""DuckDB over the warehouse's files, bounded in memory: views of what stands, and of who had said what before.

Of files on the local disk DuckDB reads what it needs itself. Its own way to S3 is an extension, which would have to be
fetched from somewhere; so what lies there it reads through pyarrow.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from central.warehouse.layout import Names, laid_out
from central.warehouse.storage import Storage
from central.warehouse.tables import ANSWERS, TABLES, VERDICTS, Table
from models.contracts.errors import UnavailableError
from models.contracts.verdict import CENTRAL, PERSON

MEMORY_BYTES: Final = 1 << 30
"""What a query or a compaction may hold in memory; then it writes to the disk."""

REPLACES: Final = b"headwater.replaces"
"""The key in a settled file's metadata under which the files stand whose rows it holds, with spaces between."""

SUPERSEDED: Final = pa.field("superseded", pa.bool_())
"""In settled files only: whether another row of the same id stands."""

_DAY = pa.field("day", pa.date32())
_BY_DAY = ds.partitioning(pa.schema([_DAY]), flavor="hive")

# What the views say, in the words of their columns. Gateways and centre have revisions of their own, and people too.
_ESCALATIONS = f"""
CREATE VIEW escalations AS
SELECT asked.day, asked.id, asked.received_at, asked.source, asked.gateway, asked.text,
       asked.label AS gateway_label, asked.confidence AS gateway_confidence, asked.release AS gateway_release,
       answered.label AS central_label, answered.confidence AS central_confidence, answered.route AS central_route,
       answered.release AS central_release, answered.label <> asked.label AS changed,
       epoch_ms(answered.stored_at - asked.stored_at) / 1000 AS seconds
FROM (SELECT * FROM history WHERE revision < {CENTRAL} AND route = 'escalated'
      QUALIFY row_number() OVER (PARTITION BY day, id ORDER BY revision DESC) = 1) AS asked
LEFT JOIN (SELECT * FROM history WHERE revision >= {CENTRAL} AND revision < {PERSON}
      QUALIFY row_number() OVER (PARTITION BY day, id ORDER BY revision DESC) = 1) AS answered USING (day, id)
"""


@contextmanager
def connected(memory_bytes: int = MEMORY_BYTES, scratch: Path | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield an empty database in memory; what does not fit goes to a folder below `scratch`, and is deleted."""
    with TemporaryDirectory(prefix="headwater-warehouse-", dir=scratch) as folder:
        settings: dict[str, Any] = {"memory_limit": f"{memory_bytes >> 20}MiB", "temp_directory": folder}
        settings |= {"autoinstall_known_extensions": False, "autoload_known_extensions": False}
        connection = duckdb.connect(config=settings)
        try:
            connection.execute("SET TimeZone = 'UTC'")  # as days are
            connection.execute("SET parquet_metadata_cache = true")  # a view may read a file more than once
            connection.execute("SET enable_progress_bar = false")  # it would be drawn into what is printed
            yield connection
        finally:
            connection.close()


def replaced_by(storage: Storage) -> Names:
    """Return what reads from a settled file the names of those whose rows it holds."""

    def read(name: str) -> Sequence[str]:
        with storage.telling(f"{name} cannot be read"):
            metadata = pq.read_metadata(storage.path(name), filesystem=storage.filesystem).metadata or {}
        return bytes(metadata.get(REPLACES, b"")).decode().split()

    return read


def scan(
    connection: duckdb.DuckDBPyConnection, name: str, storage: Storage, table: Table, files: Sequence[str]
) -> None:
    """Make a view of the rows in these files, with their day and whether they are superseded, as far as known.

    Files that were written before a column was thought of have nothing in it.

    Raises:
        UnavailableError: they cannot be read.
    """
    schema = pa.schema([*table.schema, SUPERSEDED, _DAY])
    paths = [storage.path(file) for file in files]
    connection.register(f"{name}_empty", schema.empty_table())
    found = f"FROM {name}_empty"
    if paths and storage.is_local:
        found += f"""
            UNION ALL BY NAME FROM read_parquet(
                [{", ".join(map(_quoted, paths))}],
                union_by_name = true, hive_partitioning = true, hive_types = {{'day': date}})"""
    elif paths:
        with storage.telling("cannot be read"):
            dataset = ds.dataset(paths, schema, format="parquet", filesystem=storage.filesystem, partitioning=_BY_DAY)
        connection.register(f"{name}_files", dataset)
        found = f"FROM {name}_files"
    columns = ", ".join(f'"{column}"' for column in schema.names)
    try:
        connection.execute(f"CREATE VIEW {name} AS SELECT {columns} FROM ({found})")
    except duckdb.Error as error:
        raise UnavailableError(f"warehouse {storage.url}: cannot be read: {str(error).splitlines()[0]}") from error


def make_views(connection: duckdb.DuckDBPyConnection, storage: Storage) -> int:
    """Make the views of what is in the warehouse now; return how many files there are.

    Raises:
        UnavailableError: the warehouse cannot be read.
    """
    files = 0
    for table in TABLES:
        layout = laid_out([found.name for found in storage.files(table.name)], replaced_by(storage))
        parts = {"settled": layout.settled, "begun": layout.begun, "fresh": layout.fresh}
        if not table.keeps_day:
            parts = {"settled": (), "begun": (), "fresh": layout.settled + layout.begun + layout.fresh}
        for part, names in parts.items():
            scan(connection, f"_{table.name}_{part}", storage, table, names)
            files += len(names)
    connection.execute(f"CREATE VIEW verdicts AS {_standing(VERDICTS)}")
    connection.execute(f"CREATE VIEW history AS {_standing(VERDICTS, every_revision=True)}")
    connection.execute(f"CREATE VIEW answers AS SELECT *, label = model_label AS agrees FROM ({_standing(ANSWERS)})")
    connection.execute(_ESCALATIONS)
    return files


def shut(connection: duckdb.DuckDBPyConnection, storage: Storage) -> None:
    """Let what is asked from now on see the views, and nothing else of this machine."""
    if storage.is_local:
        connection.execute(f"SET allowed_directories = [{_quoted(storage.path(''))}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET python_enable_replacements = false")
    connection.execute("SET lock_configuration = true")


def _standing(table: Table, *, every_revision: bool = False) -> str:
    """Return a query of one row per id, the one that stands; or of one row per id and revision.

    Only what fresh files speak of has to be compared; of the other rows their file knows whether they stand.
    """
    one = "day, id" if table.keeps_day else "id"
    settled, begun, fresh = (f"_{table.name}_{part}" for part in ("settled", "begun", "fresh"))
    columns = ", ".join(f'"{column}"' for column in ("day", *table.schema.names))
    stands = "" if every_revision else "WHERE NOT superseded"
    first = (
        f"PARTITION BY {one}, revision ORDER BY" if every_revision else f"PARTITION BY {one} ORDER BY revision DESC,"
    )
    return f"""
        SELECT {columns} FROM {settled} {stands}
        UNION ALL
        SELECT {columns} FROM {begun} ANTI JOIN {fresh} USING ({one}) {stands}
        UNION ALL
        SELECT {columns} FROM (FROM {fresh} UNION ALL FROM {begun} SEMI JOIN {fresh} USING ({one}))
        QUALIFY row_number() OVER ({first} {table.copies}) = 1
    """


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
