"""`python -m central ask`: SQL over the warehouse. A table on a terminal, lines with tabs in a pipe, or JSON lines."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import Any

import click
import duckdb
import msgspec
import pyarrow as pa
from msgspec import Struct
from rich.console import Console
from rich.table import Table
from rich.text import Text

from central.visible import visible
from central.warehouse.session import MEMORY_BYTES, connected, make_views, shut
from central.warehouse.storage import open_storage
from models.contracts.errors import InputError, UnavailableError

_BATCH_ROWS = 4096
_encoder = msgspec.json.Encoder(decimal_format="number", enc_hook=str)
_MOST_ON_A_TERMINAL = 500


class Result(Struct, frozen=True):
    """What a query came to."""

    columns: Sequence[str]
    figures: frozenset[str]  # those of them that hold numbers
    rows: Iterator[Sequence[Any]]  # as JSON has them; read while one goes through them
    files: int  # in the warehouse


def ask(sql: str, url: str, *, as_json: bool = False, memory_bytes: int = MEMORY_BYTES) -> None:
    """Print what a query comes to.

    Raises:
        InputError: it is no query, or none that can be answered.
        ConfigError: `url` is of no warehouse.
        UnavailableError: the warehouse cannot be read.
    """
    with asked(sql, url, memory_bytes) as result:
        _print(result, as_json=as_json)
        if not result.files:
            click.echo(f"headwater: there is nothing in the warehouse {url} yet", err=True)


@contextmanager
def asked(sql: str, url: str, memory_bytes: int = MEMORY_BYTES, scratch: Path | None = None) -> Iterator[Result]:
    """Yield what a query comes to; it sees the views and nothing else, and changes nothing.

    Raises:
        InputError: it is no query, or none that can be answered.
        ConfigError: `url` is of no warehouse.
        UnavailableError: the warehouse cannot be read.
    """
    storage = open_storage(url)
    with connected(memory_bytes, scratch) as connection:
        files = make_views(connection, storage)
        shut(connection, storage)
        with _in_words(url):
            if [found.type for found in duckdb.extract_statements(sql)] != [duckdb.StatementType.SELECT]:
                raise InputError("SQL: found something else, wanted one query, as in `SELECT count(*) FROM verdicts`")
            reader = connection.sql(sql).to_arrow_reader(_BATCH_ROWS)
        yield Result(
            columns=reader.schema.names,
            figures=frozenset(column.name for column in reader.schema if _is_figure(column.type)),
            rows=_rows(reader, url),
            files=files,
        )


def lines(result: Result) -> Iterator[str]:
    """Yield the names of the columns, and then each row's values, with tabs between them; none holds one itself."""
    yield "\t".join(map(visible, result.columns))
    for row in result.rows:
        yield "\t".join(visible(_shown(value)) for value in row)


def json_lines(result: Result) -> Iterator[str]:
    """Yield each row as an object, in ASCII."""
    for row in result.rows:
        yield json.dumps(dict(zip(result.columns, row, strict=True)), ensure_ascii=True)


def table(result: Result, rows: Sequence[Sequence[Any]]) -> Table:
    """Return rows as a table for a terminal."""
    found = Table(box=None, padding=(0, 2, 0, 0))
    for column in result.columns:
        figure = column in result.figures
        found.add_column(Text(visible(column)), justify="right" if figure else "left", no_wrap=figure)
    for row in rows:
        found.add_row(*(Text(visible(_shown(value))) for value in row))
    return found


def _print(result: Result, *, as_json: bool) -> None:
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # what the terminal's encoding lacks is a question mark
    console = Console(highlight=False)
    if as_json or not console.is_terminal:
        for line in json_lines(result) if as_json else lines(result):
            click.echo(line)
        return
    console.print(table(result, list(islice(result.rows, _MOST_ON_A_TERMINAL))))
    if next(result.rows, None) is not None:
        click.echo(f"headwater: the first {_MOST_ON_A_TERMINAL} rows; a pipe gets all of them", err=True)


@contextmanager
def _in_words(url: str) -> Iterator[None]:
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        raise UnavailableError(
            f"warehouse {url}: the query does not fit into memory and scratch space: {error}"
        ) from error
    except (duckdb.IOException, OSError) as error:
        raise UnavailableError(f"warehouse {url}: cannot be read: {error}") from error
    except duckdb.Error as error:
        raise InputError("SQL: " + "\n".join(map(visible, str(error).splitlines()))) from error


def _rows(reader: pa.RecordBatchReader, url: str) -> Iterator[Sequence[Any]]:
    while True:
        with _in_words(url):
            batch = next(reader, None)
        if batch is None:
            return
        try:
            rows = zip(*(column.to_pylist(maps_as_pydicts="lossy") for column in batch.columns), strict=True)
            plain = [msgspec.json.decode(_encoder.encode(row)) for row in rows]
        except (ArithmeticError, TypeError, ValueError) as error:
            # A date beyond the year 9999, say, or a map whose keys are lists.
            raise InputError(f"SQL: a value of the result cannot be shown: {error}; cast it to VARCHAR") from error
        yield from plain


def _is_figure(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
