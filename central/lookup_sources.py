"""Where tables of facts come from: a CSV file, a query of a database, a compacted topic."""

import csv
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import date
from os import stat_result
from pathlib import Path
from typing import Any, Protocol

import msgspec
import structlog
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from dataflows.connectors.kafka import Cluster
from dataflows.connectors.kafka_consumer import OffsetReader
from dataflows.connectors.kafka_reader import read_whole
from dataflows.lookup import Facts, Table
from models.contracts.errors import ConfigError, InputError, UnavailableError
from models.contracts.wire import NOT_DECODED

_CONNECT_S = 5
_STATEMENT_S = 30
# What a driver calls its time limits; with another driver a query that hangs leaves the table to grow old.
_LIMITS: dict[str, dict[str, Any]] = {
    "sqlite": {"timeout": _CONNECT_S},
    "postgresql": {"connect_timeout": _CONNECT_S, "tcp_user_timeout": _STATEMENT_S * 1000},
}
# Of the transaction alone, which may share its connection with those of others.
_FIRST: dict[str, tuple[str, ...]] = {
    "postgresql": ("SET TRANSACTION READ ONLY", f"SET LOCAL statement_timeout = '{_STATEMENT_S}s'"),
}
_ROWS_TOGETHER = 1000
_FOLLOW_S = 0.2
_MOST_TURNS = 1000  # of so many records at most each; the rest is for the next time

log = structlog.get_logger()

_facts = msgspec.json.Decoder(dict[str, str | int | float | bool | None])


class TableSource(Protocol):
    """Used by one thread."""

    def read(self) -> Table | None:
        """Return the table as it is now; None where it is as it was.

        Raises:
            UnavailableError: the source is away.
            InputError: what it says is no table.
        """

    def close(self) -> None: ...


class CsvFile:
    """A file with names of columns in its first line; it is read again when it has changed."""

    def __init__(self, path: Path, key: str, most_rows: int) -> None:
        self._path = path
        self._key = key
        self._most_rows = most_rows
        self._read: tuple[int, int, int] | None = None

    def read(self) -> Table | None:
        try:
            before = _identity(self._path.stat())
            if before == self._read:
                return None
            with self._path.open(encoding="utf-8-sig", newline="") as file:
                table = Table(self._rows(csv.reader(file, strict=True)), self._most_rows)
            after = _identity(self._path.stat())
        except OSError as error:
            raise UnavailableError(f"{self._path}: {error.strerror}; wanted a file that we may read") from error
        except (csv.Error, UnicodeDecodeError) as error:
            raise InputError(f"{self._path}: {error}; wanted CSV in UTF-8") from error
        if before != after:
            raise UnavailableError(f"{self._path}: was changed while it was read; write another file and rename it")
        self._read = after
        return table

    def close(self) -> None:
        pass

    def _rows(self, lines: Iterator[list[str]]) -> Iterator[tuple[str, Facts]]:
        names = next(lines, [])
        if self._key not in names:
            raise InputError(f"{self._path}: found the columns {names}, wanted `{self._key}` among them")
        at = names.index(self._key)
        for number, values in enumerate(lines, 2):
            if not values:
                continue
            if len(values) != len(names):
                raise InputError(f"{self._path}, record {number}: found {len(values)} columns, wanted {len(names)}")
            if values[at]:
                yield values[at], _facts_of(zip(names, values, strict=True), self._key)


class SqlQuery:
    """What a query returns; one of its columns is the key."""

    def __init__(self, url: str, statement: str, key: str, most_rows: int) -> None:
        """Describe the query; nothing is asked yet.

        Raises:
            ConfigError: the URL is none, or its driver is not installed.
        """
        try:
            place = make_url(url)
            self._where = place.set(query={}).render_as_string(hide_password=True)  # a query may hold one, too
            self._kind = place.get_backend_name()
            self._engine = create_engine(place, poolclass=NullPool, connect_args=_LIMITS.get(self._kind, {}))
        except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
            raise ConfigError(
                f"lookup: {error}; wanted a URL such as postgresql+psycopg://user@host/database"
            ) from error
        self._statement = text(statement)
        self._key = key
        self._most_rows = most_rows

    def read(self) -> Table:
        with self._translated(), self._engine.connect() as connection:
            for statement in _FIRST.get(self._kind, ()):
                connection.execute(text(statement))
            found = connection.execution_options(yield_per=_ROWS_TOGETHER).execute(self._statement)
            if self._key not in found.keys():  # noqa: SIM118 - it is no dictionary
                raise InputError(
                    f"{self._where}: found the columns {list(found.keys())}, wanted `{self._key}` among them"
                )
            rows = (row for row in found.mappings() if row[self._key] is not None)
            return Table(
                ((_written(row[self._key]), _facts_of(row.items(), self._key)) for row in rows), self._most_rows
            )

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            # The library's own message has the statement in it, and a page of advice.
            said = str(error.orig if isinstance(error, DBAPIError) else error).strip() or type(error).__name__
            raise UnavailableError(f"{self._where}: {said.splitlines()[0]}") from error


class CompactedTopic:
    """The last record of each key: read whole at first, and then followed. A record without a value takes a key out."""

    def __init__(self, cluster: Cluster, topic: str, most_rows: int) -> None:
        self._cluster = cluster
        self._topic = topic
        self._most_rows = most_rows
        self._rows: dict[str, Facts] = {}
        self._refused = 0
        self._said = ""
        self._at: dict[int, int] = {}
        self._reader: OffsetReader | None = None

    def read(self) -> Table | None:
        try:
            changed = self._read_whole() if self._reader is None else self._follow(self._reader)
            if self._refused:
                log.warning("lookup_records_refused", topic=self._topic, records=self._refused, last=self._said)
            self._refused = 0
            return Table(self._rows.items(), self._most_rows) if changed else None
        except Exception:
            # While we do not look, a record that takes a key out may itself be compacted away: so all is read anew.
            self.close()
            raise

    def close(self) -> None:
        reader, self._reader = self._reader, None
        self._rows, self._at = {}, {}
        if reader is not None:
            reader.close()

    def _read_whole(self) -> bool:
        for record in read_whole(self._cluster, self._topic):
            self._take(record.key, record.value)
            self._at[record.partition] = record.offset + 1
        self._reader = OffsetReader(self._cluster, self._topic)
        return True

    def _follow(self, reader: OffsetReader) -> bool:
        changed = False
        for _ in range(_MOST_TURNS):
            stretch = reader.read(self._at, _FOLLOW_S)
            if stretch.anew:
                raise UnavailableError(f"topic {self._topic}: was made anew; it is read whole")
            self._at = stretch.at
            for record in stretch.records:
                self._take(record.key, record.value)
                changed = True
            if not stretch.records:
                break
        return changed

    def _take(self, key: bytes | None, value: bytes | None) -> None:
        name = (key or b"").decode("utf-8", "replace")
        if not value:
            self._rows.pop(name, None)
            return
        try:
            self._rows[name] = _facts_of(_facts.decode(value).items(), "")
        except NOT_DECODED as error:  # what was said of the key before stands
            self._refused += 1
            self._said = f"key {name}: {error}; wanted a flat JSON object"
        if len(self._rows) > self._most_rows:
            raise InputError(f"topic {self._topic}: more than {self._most_rows} keys, which is the most")


def _identity(status: stat_result) -> tuple[int, int, int]:
    return status.st_mtime_ns, status.st_size, status.st_ino


def _facts_of(items: Iterable[tuple[Any, Any]], key: str) -> Facts:
    """Return the facts of a row: its columns but the key, and those that are empty."""
    return {str(name): _written(value) for name, value in items if name != key and value is not None and value != ""}


def _written(value: Any) -> str:
    """Write a value as it stands in CSV and in rules: `true`, `7`, `2026-01-31`."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.isoformat() if isinstance(value, date) else str(value)
