"""The flow reads every record once, repeats only what was not committed, and trims only what was."""

import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from time import monotonic

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import run_main
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from dataflows.connectors.batch import Batch
from dataflows.connectors.spool import Arrival, Spool, SpoolReader
from dataflows.connectors.spool_source import SpoolPartition, SpoolSource, next_window
from tests.fakes.sink import MemorySink

LIMIT = 64 << 20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.sqlite3"


def fill(path: Path, *sizes: int, source: str = "hosts") -> list[bytes]:
    """Append one arrival for each size; return all records."""
    spool = Spool(path, LIMIT)
    arrivals = [Arrival(source, 1, [b"%d/%d" % (n, i) for i in range(size)]) for n, size in enumerate(sizes)]
    spool.append(arrivals)
    spool.close()
    return [record for arrival in arrivals for record in arrival.records]


def opened(path: Path, resume: tuple[str, int, int] | None = None, batch_events: int = 64) -> SpoolPartition:
    return SpoolPartition(SpoolReader(path), resume, Event(), batch_events=batch_events, drain=True)


def drained(partition: SpoolPartition) -> list[Batch]:
    found: list[Batch] = []
    try:
        while True:
            found.extend(partition.next_batch())
    except StopIteration:
        return found


def test_small_arrivals_come_together_and_large_ones_in_stretches(path: Path) -> None:
    records = fill(path, 1, 2, 200, 3)
    partition = opened(path)

    sizes = []
    seen: list[bytes] = []
    try:
        while True:
            batches = partition.next_batch()
            sizes.append([len(batch.records) for batch in batches])
            seen.extend(record for batch in batches for record in batch.records)
    except StopIteration:
        pass

    assert sizes == [[1], [2], [4], [8], [16], [32], [64], [64], [12, 3]]
    assert seen == records


@given(st.integers(32, 512))
def test_a_window_doubles_while_it_is_full_and_quick_and_keeps_to_a_few_events_where_it_is_not(most: int) -> None:
    def after(took_s: float, events: int, *, full: bool = True) -> int:
        for _ in range(10):
            events = next_window(events, took_s, 0.02, most, full=full)
        return events

    assert after(0.01, 1) == most
    assert after(0.05, 1) == 32
    assert after(0.1, most) == 32
    assert after(2.0, most) == 1
    assert after(0.01, 1, full=False) == 1


def test_ids_name_the_spool_the_arrival_and_the_record_however_it_is_cut(path: Path) -> None:
    fill(path, 2, 3)
    spool_id = SpoolReader(path).id
    expected = [f"{spool_id}.{seq}.{index}" for seq, index in ((1, 0), (1, 1), (2, 0), (2, 1), (2, 2))]

    for batch_events in (1, 2, 64):
        found = [id_ for batch in drained(opened(path, batch_events=batch_events)) for id_ in batch.ids]
        assert found == expected


def test_a_source_with_positions_of_its_own_names_its_records_by_them(path: Path) -> None:
    Spool(path, LIMIT).append([Arrival("log", 1, [b"a", b"b", b"c"], "f00d", ["0", "17", "40"])])

    batches = drained(opened(path, batch_events=2))

    assert [batch.ids for batch in batches] == [["f00d.0"], ["f00d.17", "f00d.40"]]


def test_each_record_has_the_topic_it_came_by_however_it_is_cut(path: Path) -> None:
    Spool(path, LIMIT).append(
        [Arrival("bus", 1, [b"a", b"b", b"c"], topics=["x", "y", "z"]), Arrival("hosts", 1, [b"d"])]
    )

    batches = drained(opened(path, batch_events=2))

    assert [batch.topics for batch in batches] == [["x"], ["y", "z"], []]


def test_a_restart_from_any_snapshot_goes_on_exactly_there(path: Path, tmp_path: Path) -> None:
    records = fill(path, 5, 1, 7)
    partition = opened(path, batch_events=2)
    seen = 0
    while seen < len(records):
        position = partition.snapshot()
        partition._committable = None  # not trimmed here, so that the copy below holds everything
        resumed = tmp_path / "resumed.sqlite3"
        with sqlite3.connect(path) as source, sqlite3.connect(resumed) as copy:
            source.backup(copy)
        rest = [record for batch in drained(opened(resumed, position, 2)) for record in batch.records]
        assert rest == records[seen:]
        seen += sum(len(batch.records) for batch in partition.next_batch())


def test_only_what_a_snapshot_had_passed_is_trimmed_and_only_on_the_call_after_it(path: Path) -> None:
    fill(path, 1, 2, 64)
    held = SpoolReader(path)
    partition = opened(path)
    partition.next_batch()
    partition.next_batch()
    assert held.span()[0] == 1
    partition.snapshot()
    assert held.span()[0] == 1
    partition.next_batch()
    assert held.span()[0] == 3


def test_an_arrival_that_is_half_read_is_not_trimmed(path: Path) -> None:
    fill(path, 100)
    partition = opened(path)
    partition.next_batch()
    partition.snapshot()
    partition.next_batch()

    assert SpoolReader(path).span()[0] == 1


@pytest.mark.parametrize("position", [("00000000", 9, 3), None])
def test_a_spool_that_took_the_place_of_another_is_read_from_its_start(
    path: Path, position: tuple[str, int, int] | None
) -> None:
    records = fill(path, 3)
    with capture_logs() as logs:
        found = [record for batch in drained(opened(path, position)) for record in batch.records]

    assert found == records
    assert [entry["event"] for entry in logs] == (["spool_replaced"] if position else [])


def test_a_spool_older_than_the_recovery_store_is_read_from_its_start_and_said(path: Path) -> None:
    records = fill(path, 3)
    with capture_logs() as logs:
        found = [r for batch in drained(opened(path, (SpoolReader(path).id, 50, 0))) for r in batch.records]

    assert found == records
    assert [entry["event"] for entry in logs] == ["spool_older_than_recovery"]


def test_a_recovery_store_older_than_the_spool_is_said(path: Path) -> None:
    records = fill(path, 2, 2, 2)
    SpoolReader(path).trim(3)
    with capture_logs() as logs:
        found = [r for batch in drained(opened(path, (SpoolReader(path).id, 1, 0))) for r in batch.records]

    assert found == records[4:]
    assert [entry["event"] for entry in logs] == ["spool_trimmed_past_recovery"]


def test_an_idle_source_is_always_due_and_waits_no_longer_than_fifty_milliseconds(path: Path) -> None:
    partition = SpoolPartition(SpoolReader(path), None, Event(), batch_events=64, drain=False)
    waits_s = []
    for _ in range(5):
        began = monotonic()
        assert partition.next_batch() == []
        waits_s.append(monotonic() - began)

    assert min(waits_s) < 0.05
    assert partition.next_awake() < datetime.now(UTC) - timedelta(days=365)


def test_a_stop_ends_the_source_between_two_batches(path: Path) -> None:
    fill(path, 200)
    stop = Event()
    partition = SpoolPartition(SpoolReader(path), None, stop, batch_events=64, drain=False)
    partition.next_batch()
    stop.set()
    with pytest.raises(StopIteration):
        partition.next_batch()


class CrashError(RuntimeError):
    pass


def flow(path: Path, sink: MemorySink, fail: Callable[[int], bool]) -> Dataflow:
    count = 0

    def note(batch: Batch) -> tuple[str, list[bytes]]:
        nonlocal count
        count += 1
        if fail(count):
            raise CrashError
        return "memory", batch.records

    dataflow = Dataflow("spooled")
    up = op.input("in", dataflow, SpoolSource(path, Event(), drain=True))
    op.output("out", op.map("note", up, note), sink)
    return dataflow


def test_a_flow_that_crashes_and_recovers_misses_nothing_and_leaves_nothing(path: Path, tmp_path: Path) -> None:
    records = fill(path, *([50] * 40))
    recovery = tmp_path / "recovery"
    recovery.mkdir()
    init_db_dir(recovery, 1)
    sink = MemorySink()
    for crash_at in (3, 7, 2, 11, 0):
        run = flow(path, sink, lambda count, crash_at=crash_at: count == crash_at)
        try:
            run_main(run, epoch_interval=timedelta(0), recovery_config=RecoveryConfig(str(recovery)))
        except RuntimeError:
            continue

    found = sink.records
    assert sorted(set(found)) == sorted(records)
    run_main(
        flow(path, sink, lambda _: False),
        epoch_interval=timedelta(0),
        recovery_config=RecoveryConfig(str(recovery)),
    )
    assert SpoolReader(path).status().bytes == 0
