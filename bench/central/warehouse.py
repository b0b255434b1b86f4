"""How fast verdicts become Parquet that is synced to the disk, and how soon a question over a day of it is answered."""

import sys
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from random import Random
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.pipeline import ROOT
from bench.row import Row
from central.ask import asked
from central.deliveries.warehouse import WarehouseCarrier
from central.warehouse.compaction import compact_all
from central.warehouse.layout import part_name
from central.warehouse.storage import open_storage
from central.warehouse.tables import VERDICTS, parquet, written
from models.contracts import wire
from models.contracts.policy import Route
from models.contracts.scalars import EventId
from models.contracts.verdict import CENTRAL, Verdict

_VERDICTS = 10_000_000
_DELIVERED = 200_000
_TOGETHER = 20_000  # as the courier hands them over
_RUNS = 5
_SAMPLE = ROOT / "edge" / "sample.log"
_DAY, _DAY_MS, _MS = "2026-01-31", 1_769_817_600_000, 24 * 3600 * 1000
_QUERY = f"""
SELECT source, route, label, count(*) AS verdicts, avg(confidence) AS confidence
FROM verdicts WHERE day = '{_DAY}' GROUP BY ALL ORDER BY ALL
"""  # noqa: S608 - the day is ours


def rows(verdicts: int = _VERDICTS, delivered: int = _DELIVERED) -> list[Row]:
    """Measure deliveries to the local disk, and then a day's group-by over so many verdicts in one compacted file."""
    with TemporaryDirectory(prefix="headwater-bench-") as folder:
        rate = delivered_per_s(f"{folder}/delivered", delivered)
        took_ms = asked_ms(f"{folder}/asked", verdicts)
    return [
        Row(name="warehouse_verdicts_per_s", value=rate, unit=f"verdicts/s over {delivered}, synced"),
        Row(name="warehouse_query_ms", value=took_ms, unit=f"ms, a day's group-by over {verdicts} verdicts"),
    ]


def delivered_per_s(url: str, count: int) -> float:
    """Deliver encoded verdicts as the courier does, in the order of time."""
    carrier = WarehouseCarrier(url)
    payloads = [wire.encode(verdict) for verdict in some(count)]
    begun = perf_counter()
    for start in range(0, count, _TOGETHER):
        refused = carrier.deliver(payloads[start : start + _TOGETHER])
        if refused:
            raise RuntimeError(f"bench: {len(refused)} verdicts refused; the figure is none")
    return count / (perf_counter() - begun)


def asked_ms(url: str, count: int) -> float:
    """Fill a day, compact it, and ask; from nothing open to the last row.

    Raises:
        RuntimeError: not every verdict is counted.
    """
    answered = fill(url, count)
    begun = perf_counter()
    list(compact_all(open_storage(url)))
    print(f"warehouse: {count} verdicts compacted in {perf_counter() - begun:.0f} s", file=sys.stderr)
    took = []
    for _ in range(_RUNS):
        begun = perf_counter()
        with asked(_QUERY, url) as result:
            found = sum(row[3] for row in result.rows)
        took.append((perf_counter() - begun) * 1000)
        if found != count - answered:
            raise RuntimeError(f"bench: {count - answered} verdicts stand, {found} were counted; the figure is none")
    return median(took)


def fill(url: str, count: int) -> int:
    """Put a day of verdicts into a warehouse; return how many of them are the centre's, on an event that has one.

    Some are made as everywhere; the others are those again, with ids, times and confidences of their own.
    """
    storage = open_storage(url)
    like = pq.read_table(pa.BufferReader(parquet(VERDICTS, list(some(min(count, _TOGETHER))), _DAY_MS)))
    chance = np.random.default_rng(0)
    answered = 0
    for number, start in enumerate(range(0, count, like.num_rows)):
        part = like.slice(0, min(like.num_rows, count - start))
        at = _DAY_MS + (np.arange(start, start + part.num_rows) * _MS) // count
        ids = pa.array([f"gw.{start + place}" for place in range(part.num_rows)])
        part = replaced(part, "received_at", pa.array(at, pa.timestamp("ms", "UTC")))
        part = replaced(part, "confidence", pa.array(1 - chance.beta(1, 8, part.num_rows)))
        part = replaced(part, "id", ids)
        # What the centre answered has the id of the event before it.
        central = np.flatnonzero(part["revision"].to_numpy() >= CENTRAL)
        order = np.arange(part.num_rows)
        order[central] -= 1
        part = replaced(part, "id", ids.take(pa.array(order)))
        answered += len(central)
        sink = pa.BufferOutputStream()
        with written(VERDICTS.schema, sink) as file:
            file.write_table(part)
        storage.put(part_name(VERDICTS.name, _DAY, f"{number:032x}"), sink.getvalue())
    return answered


def replaced(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    """Return a table with another column in place of one."""
    return table.set_column(table.schema.get_field_index(name), table.schema.field(name), values)


def some(count: int) -> Iterator[Verdict]:
    """Yield verdicts on lines of the shipped sample, in the order of time; behind each doubt the centre's answer."""
    lines = _lines(_SAMPLE)
    chance = Random(0)
    asked_last: Verdict | None = None
    for number, text in enumerate(islice(cycle(lines), count)):
        if asked_last is not None:
            yield _verdict(number, asked_last.text, "accepted", chance, revision=CENTRAL, event=asked_last.id)
            asked_last = None
            continue
        route: Route = chance.choices(("accepted", "escalated", "review"), (90, 7, 3))[0]
        verdict = _verdict(number, text, route, chance)
        yield verdict
        asked_last = verdict if route == "escalated" else None


def _verdict(
    number: int, text: str, route: Route, chance: Random, *, revision: int = 0, event: EventId | None = None
) -> Verdict:
    label = chance.choices(("benign", "suspicious", "critical"), (90, 8, 2))[0]
    confidence = 1 - chance.betavariate(1, 8)
    rest = (1 - confidence) / 2
    return Verdict(
        id=event or EventId(f"gw.{number}"),
        text=text,
        label=label,
        confidence=confidence,
        probabilities={each: confidence if each == label else rest for each in ("benign", "suspicious", "critical")},
        label_mass=0.99,
        fields={"source_address": (f"203.0.113.{chance.randrange(256)}",)} if label != "benign" else {},
        route=route,
        release="large-1" if revision else "soc-triage-5",
        policy=1,
        source=chance.choice(("hosts", "firewalls", "devices")),
        received_at_ms=_DAY_MS + number,
        host=f"web-{chance.randrange(200)}",
        app=chance.choice(("sshd", "kernel", "cron")),
        cached=None if chance.random() < 0.3 else f"{chance.randrange(2000):012x}",
        revision=revision,
        gateway=f"gw-{chance.randrange(40)}",
        context={"owner": chance.choice(("ops", "shop", "lab"))},
    )


def _lines(path: Path) -> Sequence[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines()


if __name__ == "__main__":
    print(wire.encode_lines(rows()).decode(), end="")
