"""The warehouse's tables: their columns, and records turned into files by the day that they belong to. Pure."""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import Struct

from dataflows.connectors.courier import Refusal
from models.contracts import wire
from models.contracts.errors import InputError

LATEST_MS: Final = 253_402_300_799_999
"""The end of the year 9999, beyond which neither SQL nor Python has dates."""

_TEXT, _WHOLE, _REAL, _YES = pa.string(), pa.int64(), pa.float64(), pa.bool_()
_MOMENT = pa.timestamp("ms", "UTC")
_MOST = {_WHOLE: 2**63 - 1, _MOMENT: LATEST_MS}
# Of the others hardly two are alike, and a dictionary would be a detour.
_REPEATING = [
    *("source", "gateway", "label", "route", "release", "policy", "revision", "cached", "host", "app", "severity"),
    *("topic", "reason", "kind", "model_label", "by"),
    *("fields.key_value.key", "fields.key_value.value.list.element", "probabilities.key_value.key"),
    *("context.key_value.key", "context.key_value.value"),
]


class Table(Struct, frozen=True, kw_only=True):
    """One kind of record. A column is called as the record's field, a moment without its `_ms`.

    `stored_at` is the only column that no record has: when the warehouse took the row, by the centre's clock.
    """

    name: str
    schema: pa.Schema
    moment: str  # the column that says the day
    keeps_day: bool  # whether all revisions of an id have one moment, and so one day
    decode: Callable[[bytes], Any]
    copies: str  # which of two rows with one id and revision stands: the first in this order


VERDICTS: Final = Table(
    name="verdicts",
    schema=pa.schema(
        {
            "id": _TEXT,
            "received_at": _MOMENT,
            "source": _TEXT,
            "gateway": _TEXT,
            "label": _TEXT,
            "confidence": _REAL,
            "route": _TEXT,
            "release": _TEXT,
            "policy": _WHOLE,
            "revision": _WHOLE,
            "cached": _TEXT,
            "host": _TEXT,
            "app": _TEXT,
            "severity": _WHOLE,
            "occurred_at": _MOMENT,
            "topic": _TEXT,
            "text": _TEXT,
            "fields": pa.map_(_TEXT, pa.list_(_TEXT)),
            "context": pa.map_(_TEXT, _TEXT),
            "probabilities": pa.map_(_TEXT, _REAL),
            "label_mass": _REAL,
            "reason": _TEXT,
            "truncated": _YES,
            "replaced": _YES,
            "stored_at": _MOMENT,
        }
    ),
    moment="received_at",
    keeps_day=True,
    decode=wire.decode_verdict,
    # A crash may have an event judged twice under one revision, by two releases perhaps.
    copies="received_at, policy DESC, release DESC, confidence DESC, label, route, stored_at",
)

ANSWERS: Final = Table(
    name="answers",
    schema=pa.schema(
        {
            "id": _TEXT,
            "at": _MOMENT,
            "kind": _TEXT,
            "source": _TEXT,
            "gateway": _TEXT,
            "label": _TEXT,
            "model_label": _TEXT,
            "confidence": _REAL,
            "route": _TEXT,
            "release": _TEXT,
            "policy": _WHOLE,
            "cached": _TEXT,
            "by": _TEXT,
            "note": _TEXT,
            "revision": _WHOLE,
            "text": _TEXT,
            "stored_at": _MOMENT,
        }
    ),
    moment="at",
    keeps_day=False,  # people correct themselves the next day
    decode=wire.decode_answer,
    copies='"at", label, "by", stored_at',
)

TABLES: Final = (VERDICTS, ANSWERS)


class Lot(Struct, frozen=True):
    """What of one delivery belongs to one day, in the table's order."""

    day: str  # `2026-01-31`, in UTC
    records: Sequence[Any]
    digest: str  # the same records have the same, in whatever order they came


def lots(table: Table, payloads: Sequence[bytes]) -> tuple[list[Lot], list[Refusal]]:
    """Read payloads and part them by day; what the table has no room for is refused."""
    by_day: dict[int, list[tuple[Any, bytes]]] = {}
    refusals = []
    moment, bounds = _attribute(table.schema.field(table.moment)), list(_bounds(table))
    for position, payload in enumerate(payloads):
        try:
            record = table.decode(payload)
            _check(record, bounds)
        except InputError as error:
            refusals.append(Refusal(position, f"{table.name}: {error}"))
        else:
            by_day.setdefault(getattr(record, moment) // _DAY_MS, []).append((record, payload))
    return [_lot(day, found, moment) for day, found in sorted(by_day.items())], refusals


def parquet(table: Table, records: Sequence[Any], stored_at_ms: int) -> pa.Buffer:
    """Return records as a file."""
    columns = {
        column.name: [stored_at_ms] * len(records)
        if column.name == "stored_at"
        else [getattr(record, attribute) for record in records]
        for column in table.schema
        for attribute in [_attribute(column)]
    }
    sink = pa.BufferOutputStream()
    with written(table.schema, sink) as file:
        file.write_table(pa.table(columns, table.schema))
    return sink.getvalue()


def written(schema: pa.Schema, sink: Any) -> pq.ParquetWriter:
    """Return what writes a file of rows."""
    return pq.ParquetWriter(sink, schema, compression="zstd", use_dictionary=_REPEATING)


_DAY_MS = 24 * 3600 * 1000


def _lot(day: int, found: list[tuple[Any, bytes]], moment: str) -> Lot:
    found.sort(key=lambda each: (getattr(each[0], moment), each[0].id, each[0].revision, each[1]))
    digest = sha256(b"\n".join(payload for _, payload in found)).hexdigest()[:32]
    date = datetime.fromtimestamp(day * _DAY_MS // 1000, UTC)
    return Lot(f"{date:%Y-%m-%d}", [record for record, _ in found], digest)


def _bounds(table: Table) -> Iterator[tuple[str, int]]:
    for column in table.schema:
        if column.type in _MOST and column.name != "stored_at":
            yield _attribute(column), _MOST[column.type]


def _check(record: Any, bounds: Sequence[tuple[str, int]]) -> None:
    for name, most in bounds:
        value = getattr(record, name)
        if value is not None and value > most:
            raise InputError(f"`{name}`: found {value}, wanted at most {most}")


def _attribute(column: pa.Field) -> str:
    return f"{column.name}_ms" if column.type == _MOMENT else str(column.name)
