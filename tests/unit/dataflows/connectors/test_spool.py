"""The spool holds all of an append or none of it, never more than its limit, and counts exactly."""

import multiprocessing
import os
import resource
import signal
import sqlite3
import threading
from pathlib import Path

import pytest

from dataflows.connectors.spool import (
    Arrival,
    Counters,
    Notes,
    Receipt,
    Spool,
    SpoolFullError,
    SpoolReader,
    StoredArrival,
)
from models.contracts.errors import UnavailableError

LIMIT = 1 << 20


def arrival(*records: bytes, source: str = "hosts", at_ms: int = 1_700_000_000_000) -> Arrival:
    return Arrival(source, at_ms, list(records))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.sqlite3"


def test_what_is_appended_is_read_in_order_by_another_connection(path: Path) -> None:
    spool, reader = Spool(path, LIMIT), SpoolReader(path)
    tailed = Arrival("file", 5, [b"c"], "0badf00d", ["17"])

    spool.append([arrival(b"a", b"b"), tailed])

    assert reader.read(0, 10) == [StoredArrival(1, arrival(b"a", b"b")), StoredArrival(2, tailed)]
    assert reader.read(2, 10) == [StoredArrival(2, tailed)]
    assert reader.span() == (1, 3)


def test_numbers_are_not_used_again_after_a_trim_and_a_restart(path: Path) -> None:
    spool, reader = Spool(path, LIMIT), SpoolReader(path)
    spool.append([arrival(b"a"), arrival(b"b")])
    reader.trim(3)
    spool.close()
    reader.close()

    Spool(path, LIMIT).append([arrival(b"c")])

    assert SpoolReader(path).read(0, 10) == [StoredArrival(3, arrival(b"c"))]


def test_a_spool_keeps_its_id_and_another_one_has_another(path: Path, tmp_path: Path) -> None:
    first = SpoolReader(path)
    assert SpoolReader(path).id == first.id
    assert SpoolReader(tmp_path / "other.sqlite3").id != first.id


def test_the_limit_is_kept_exactly_and_room_comes_back_with_a_trim(path: Path) -> None:
    spool, reader = Spool(path, LIMIT), SpoolReader(path)
    count = 0
    while reader.status().bytes + 10_100 <= LIMIT:
        spool.append([arrival(os.urandom(10_000))])
        count += 1
    with pytest.raises(SpoolFullError, match=f"of {LIMIT} bytes"):
        spool.append([arrival(os.urandom(10_000))])

    assert LIMIT - 11_000 < reader.status().bytes <= LIMIT
    assert len(reader.read(0, 1000)) == count
    assert reader.status().counters.events == {"hosts": count}
    reader.trim(2)
    spool.append([arrival(os.urandom(10_000))])
    reader.trim(10_000)
    assert reader.status().bytes == 0


def test_an_append_that_does_not_fit_leaves_nothing_of_itself(path: Path) -> None:
    spool, reader = Spool(path, LIMIT), SpoolReader(path)
    notes = Notes(marks={"hosts": b"m"}, losses={("udp", "x"): 1}, receipts={"hosts": [Receipt(0, 0, 1, b"d")]})

    with pytest.raises(SpoolFullError):
        spool.append([arrival(b"small"), arrival(b"x" * LIMIT)], notes)

    assert reader.read(0, 10) == []
    assert reader.status().counters == Counters(events={}, losses={}, incidents={})
    assert spool.mark("hosts") is None
    assert spool.receipts("hosts") == []


def test_a_refusal_is_visible_until_something_fits_again(path: Path) -> None:
    spool, reader = Spool(path, LIMIT), SpoolReader(path)

    spool.refuse(Notes(losses={("udp", "spool-full"): 3}))
    assert reader.status().refusing
    assert reader.status().counters.losses == {("udp", "spool-full"): 3}
    spool.append([arrival(b"a")])

    assert not reader.status().refusing


def test_marks_receipts_and_counts_survive_with_their_arrivals(path: Path) -> None:
    spool = Spool(path, LIMIT)
    for number in range(5):
        receipt = Receipt(number % 3, number, 100 + number, b"digest-%d" % number)
        spool.append(
            [arrival(b"a", b"b"), arrival(b"c", source="other")],
            Notes(marks={"hosts": b"%d" % number}, receipts={"hosts": [receipt]}, incidents={("hosts", "cut"): 2}),
        )
    spool.close()

    spool = Spool(path, LIMIT)

    assert spool.mark("hosts") == b"4"
    assert sorted(receipt.number for receipt in spool.receipts("hosts")) == [2, 3, 4]
    assert SpoolReader(path).status().counters == Counters(
        events={"hosts": 10, "other": 5}, losses={}, incidents={("hosts", "cut"): 10}
    )


def test_the_oldest_time_is_that_of_what_is_not_trimmed(path: Path) -> None:
    spool, reader = Spool(path, LIMIT), SpoolReader(path)
    assert reader.status().oldest_received_at_ms is None
    spool.append([arrival(b"a", at_ms=7), arrival(b"b", at_ms=9)])
    assert reader.status().oldest_received_at_ms == 7
    reader.trim(2)
    assert reader.status().oldest_received_at_ms == 9


def test_two_processes_may_make_the_spool_at_the_same_time(path: Path) -> None:
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(SpoolReader(path).id)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == 4
    assert len(set(found)) == 1


def test_a_spool_that_cannot_be_opened_says_which_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=r"missing/spool.sqlite3: cannot be opened: .* look at the disk"):
        Spool(tmp_path / "missing" / "spool.sqlite3", LIMIT)


def test_a_file_that_is_no_spool_is_refused(path: Path) -> None:
    path.write_bytes(b"not a database at all, but long enough to look" * 100)
    with pytest.raises(UnavailableError, match="cannot be opened"):
        Spool(path, LIMIT)


def test_a_spool_of_another_version_is_left_alone(path: Path) -> None:
    Spool(path, LIMIT).close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE meta SET value = '2' WHERE key = 'format'")

    with pytest.raises(UnavailableError, match="found format 2, wanted 1"):
        SpoolReader(path)


def test_nobody_else_may_read_the_events(path: Path) -> None:
    spool = Spool(path, LIMIT)
    spool.append([arrival(b"a")])

    assert {file.stat().st_mode & 0o077 for file in path.parent.iterdir()} == {0}


def test_a_row_that_does_not_decode_is_an_outage_and_not_skipped(path: Path) -> None:
    spool, reader = Spool(path, LIMIT), SpoolReader(path)
    spool.append([arrival(b"a"), arrival(b"b")])
    with sqlite3.connect(path) as db:
        db.execute("UPDATE arrivals SET body = x'c1' WHERE seq = 1")

    with pytest.raises(UnavailableError, match="cannot be read from number 1 on"):
        reader.read(1, 10)


def _append_until_the_disk_is_full(path: Path, room: int) -> None:
    """In a process of its own, since a limit on the size of files is for a whole process."""
    spool, reader = Spool(path, 1 << 30), SpoolReader(path)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
    stored = 0
    try:
        while True:
            spool.append([arrival(os.urandom(50_000))])
            stored += 1
    except SpoolFullError:
        os._exit(3)
    except UnavailableError:
        pass
    if len(reader.read(0, 10_000)) != stored or reader.status().counters.events != {"hosts": stored}:
        os._exit(4)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    reader.trim(stored + 1)
    spool.append([arrival(b"again")])
    os._exit(0 if [row.arrival.records for row in reader.read(0, 10)] == [[b"again"]] else 5)


def test_a_full_disk_is_an_outage_that_ends_by_itself(path: Path) -> None:
    child = multiprocessing.get_context("spawn").Process(target=_append_until_the_disk_is_full, args=(path, 3 << 20))
    child.start()
    child.join(60)

    assert child.exitcode == 0


def test_what_is_to_be_left_free_of_a_disk_is_left_to_trims(path: Path) -> None:
    spool = Spool(path, LIMIT, left_free_bytes=1 << 60)

    with pytest.raises(UnavailableError, match=f"full but for the {1 << 60} bytes that the flow needs"):
        spool.append([arrival(b"b")])
    spool.refuse(Notes(losses={("udp", "disk"): 1}))

    assert SpoolReader(path).status().counters.losses == {("udp", "disk"): 1}


def test_a_spool_that_has_no_room_gives_back_what_its_log_holds(path: Path) -> None:
    Spool(path, LIMIT).append([arrival(os.urandom(100_000))])
    log = path.with_name(path.name + "-wal")
    spool = Spool(path, LIMIT, left_free_bytes=1 << 60)
    assert log.stat().st_size > 100_000

    assert not spool.takes(100)
    assert log.stat().st_size == 0


def test_a_trim_does_not_write_over_what_it_deletes(path: Path) -> None:
    spool, reader = Spool(path, LIMIT), SpoolReader(path)
    for _ in range(5):
        spool.append([arrival(os.urandom(100_000))])
    log = path.with_name(path.name + "-wal")
    db = sqlite3.connect(path)
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()

    reader.trim(6)

    assert 0 < log.stat().st_size < 100_000
