import sqlite3
from pathlib import Path

import pytest

from dataflows.connectors.backlog import Backlog, held
from models.contracts.errors import UnavailableError

PLENTY = 1 << 30


def test_payloads_come_back_in_order_after_the_file_is_opened_again(tmp_path: Path) -> None:
    backlog = Backlog(tmp_path / "b.sqlite3", PLENTY)
    backlog.append(2, [b"one", b"two"])
    backlog.append(3, [b"three"])
    backlog.close()

    again = Backlog(tmp_path / "b.sqlite3", PLENTY)

    assert (again.trimmed, again.last, again.size) == (0, 3, 11)
    assert again.after(0, PLENTY, 100) == (3, [b"one", b"two", b"three"])


def test_a_new_backlog_holds_nothing(tmp_path: Path) -> None:
    backlog = Backlog(tmp_path / "b.sqlite3", PLENTY)

    assert (backlog.trimmed, backlog.last, backlog.size) == (0, 0, 0)
    assert backlog.after(0, PLENTY, 100) == (0, [])


def test_reading_can_stop_within_a_row_and_go_on_there(tmp_path: Path) -> None:
    backlog = Backlog(tmp_path / "b.sqlite3", PLENTY)
    backlog.append(13, [b"a", b"b", b"c"])
    backlog.append(15, [b"d", b"e"])

    assert backlog.after(10, PLENTY, 2) == (12, [b"a", b"b"])
    assert backlog.after(12, PLENTY, 2) == (14, [b"c", b"d"])
    assert backlog.after(14, PLENTY, 2) == (15, [b"e"])
    assert backlog.after(15, PLENTY, 2) == (15, [])


def test_only_whole_rows_are_trimmed(tmp_path: Path) -> None:
    backlog = Backlog(tmp_path / "b.sqlite3", PLENTY)
    backlog.append(2, [b"a", b"b"])
    backlog.append(4, [b"c", b"d"])

    backlog.trim(3)

    assert backlog.size == 2
    assert backlog.after(0, PLENTY, 100) == (4, [b"c", b"d"])


def test_a_large_append_is_cut_into_rows_that_are_read_one_at_a_time(tmp_path: Path) -> None:
    backlog = Backlog(tmp_path / "b.sqlite3", PLENTY)
    payloads = [bytes([n]) * 100_000 for n in range(20)]

    backlog.append(20, payloads)

    number, first = backlog.after(0, 1, 100)
    assert (number, first) == (3, payloads[:3])
    assert backlog.after(0, PLENTY, 100) == (20, payloads)


def test_disk_that_an_outage_took_is_given_back(tmp_path: Path) -> None:
    path = tmp_path / "b.sqlite3"
    backlog = Backlog(path, PLENTY)
    backlog.append(50, [b"x" * 100_000] * 50)

    backlog.trim(50)
    backlog.close()

    assert backlog.size == 0
    assert path.stat().st_size < 100_000


def test_a_file_that_is_no_backlog_is_refused_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "b.sqlite3"
    path.write_bytes(b"not a database, and long enough to look like one" * 100)

    with pytest.raises(UnavailableError, match=r"b\.sqlite3: cannot be opened: file is not a database; move it away"):
        Backlog(path, PLENTY)


def test_nobody_else_may_read_what_waits(tmp_path: Path) -> None:
    backlog = Backlog(tmp_path / "b.sqlite3", PLENTY)
    backlog.append(1, [b"one"])

    assert len(list(tmp_path.iterdir())) > 1
    assert {file.stat().st_mode & 0o077 for file in tmp_path.iterdir()} == {0}


def test_a_row_that_does_not_decode_is_an_outage_with_advice_and_not_skipped(tmp_path: Path) -> None:
    path = tmp_path / "b.sqlite3"
    backlog = Backlog(path, PLENTY)
    backlog.append(1, [b"one"])
    with sqlite3.connect(path) as db:
        db.execute("UPDATE chunk SET body = x'c1'")

    with pytest.raises(UnavailableError, match=r"cannot be read behind number 0: .* move the file away"):
        backlog.after(0, PLENTY, 100)
    with pytest.raises(UnavailableError, match=r"cannot be opened: .*; move it away"):
        Backlog(path, PLENTY)


def test_a_disk_without_room_keeps_what_was_there_and_says_so(tmp_path: Path) -> None:
    backlog = Backlog(tmp_path / "b.sqlite3", PLENTY)
    backlog.append(1, [b"kept"])
    pages = backlog._db.execute("PRAGMA page_count").fetchone()[0]
    backlog._db.execute(f"PRAGMA max_page_count = {pages + 1}")

    with pytest.raises(UnavailableError, match="database or disk is full"):
        backlog.append(2, [b"x" * 200_000])

    assert backlog.after(0, PLENTY, 100) == (1, [b"kept"])
    assert backlog.size == 4


def test_an_append_is_synced_before_it_returns(tmp_path: Path) -> None:
    path = tmp_path / "b.sqlite3"
    backlog = Backlog(path, PLENTY)
    backlog.append(1, [b"kept"])

    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as reader:
        assert reader.execute("SELECT last FROM chunk").fetchall() == [(1,)]
    assert backlog._db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert backlog._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_what_a_backlog_holds_is_told_of_one_at_rest_and_of_one_in_use_and_leaves_no_trace(tmp_path: Path) -> None:
    backlog = Backlog(tmp_path / "b.sqlite3", PLENTY)
    backlog.append(3, [b"one", b"two", b"three"])
    assert held(tmp_path / "b.sqlite3") == 3
    backlog.trim(3)
    backlog.append(4, [b"four"])
    backlog.close()

    assert held(tmp_path / "b.sqlite3") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["b.sqlite3"]
