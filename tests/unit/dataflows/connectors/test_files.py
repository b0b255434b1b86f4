"""Each line of a growing file is stored once, through rotations, truncations and restarts, under the same id."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from threading import Event

import pytest
import structlog

from dataflows.connectors import files
from dataflows.connectors.files import FileTail, FileTailSource
from dataflows.connectors.group_commit import GroupCommit
from dataflows.connectors.spool import Spool, SpoolReader
from dataflows.connectors.spool_source import SpoolPartition
from tests.real.intake import wait_until


class Tailed:
    """A file, its tail and its spool; `restart` is what a new process would do."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "app.log"
        self._spool_path = directory / "spool.sqlite3"
        self.reader = SpoolReader(self._spool_path)
        self._tail: FileTail | None = None

    def start(self, *, from_start: bool = True, max_event_bytes: int = 8192, poll_interval_s: float = 0.01) -> None:
        spool = Spool(self._spool_path, 64 << 20)
        self._commit = GroupCommit(spool)
        source = FileTailSource(
            name="app",
            path=str(self.path),
            max_event_bytes=max_event_bytes,
            from_start=from_start,
            poll_interval_s=poll_interval_s,
        )
        self._tail = FileTail(source, self._commit, spool.mark("app"))
        self._commit.start()
        self._tail.start()

    def stop(self) -> None:
        if self._tail is not None:
            self._tail.stop()
            self._commit.close()
            self._tail = None

    def append(self, text: str) -> None:
        with self.path.open("a") as file:
            file.write(text)

    def lines(self) -> list[str]:
        return [record.decode() for row in self.reader.read(0, 100_000) for record in row.arrival.records]

    def ids(self) -> list[str]:
        rows = self.reader.read(0, 100_000)
        return [f"{row.arrival.origin}.{position}" for row in rows for position in row.arrival.positions]

    def wait_for(self, *lines: str) -> None:
        wait_until(lambda: len(self.lines()) >= len(lines), f"{len(lines)} lines")
        assert self.lines() == list(lines)

    def incidents(self) -> dict[tuple[str, str], int]:
        return dict(self.reader.status().counters.incidents)


BANNER = "#" * 300  # longer than the first bytes that tell a file


@pytest.fixture
def tailed(tmp_path: Path) -> Iterator[Tailed]:
    tailed = Tailed(tmp_path)
    yield tailed
    tailed.stop()
    tailed.reader.close()


def test_lines_are_stored_as_they_are_written_and_half_a_line_waits_for_its_end(tailed: Tailed) -> None:
    tailed.append("one\n\ntwo\r\nthr")
    tailed.start()
    tailed.wait_for("one", "two")
    tailed.append("ee\n")
    tailed.wait_for("one", "two", "three")

    origin = tailed.ids()[0].split(".")[0]
    assert tailed.ids() == [f"{origin}.0", f"{origin}.5", f"{origin}.10"]


def test_a_file_that_is_not_there_yet_is_waited_for(tailed: Tailed) -> None:
    tailed.start()
    tailed.append("one\n")
    tailed.wait_for("one")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_named_and_not_waited_in(tailed: Tailed, make: Callable[[Path], None]) -> None:
    make(tailed.path)
    said = StringIO()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(said))
    try:
        tailed.start(from_start=False)
        wait_until(lambda: "wanted a regular file" in said.getvalue(), "the warning")
    finally:
        structlog.reset_defaults()
    tailed.path.rename(tailed.path.with_name("aside"))
    tailed.append("one\n")
    tailed.wait_for("one")


def test_a_restart_goes_on_where_reading_stood(tailed: Tailed) -> None:
    tailed.append("one\ntwo\nhal")
    tailed.start()
    tailed.wait_for("one", "two")
    tailed.stop()
    tailed.append("f\nthree\n")
    tailed.start()
    tailed.wait_for("one", "two", "half", "three")

    assert len({identity.split(".")[0] for identity in tailed.ids()}) == 1
    assert tailed.incidents() == {}


def test_the_same_file_read_into_another_spool_gives_the_same_ids(tailed: Tailed, tmp_path: Path) -> None:
    tailed.append("one\ntwo\n")
    tailed.start()
    tailed.wait_for("one", "two")
    (tmp_path / "other").mkdir()
    other = Tailed(tmp_path / "other")
    other.path = tailed.path
    other.start()
    other.wait_for("one", "two")
    other.stop()

    assert other.ids() == tailed.ids()


def test_a_file_may_be_followed_from_its_end_and_then_nothing_is_skipped(tailed: Tailed) -> None:
    tailed.append("old\nhalf of")
    tailed.start(from_start=False)
    tailed.append(" one\ntwo\n")
    tailed.wait_for("half of one", "two")
    tailed.stop()
    tailed.append("three\n")
    tailed.start(from_start=False)
    tailed.wait_for("half of one", "two", "three")


def test_a_file_that_appears_later_is_read_from_its_start_in_any_case(tailed: Tailed) -> None:
    tailed.start(from_start=False)
    tailed.append("one\n")
    tailed.wait_for("one")


def test_a_restart_before_the_first_new_line_does_not_skip_to_the_end_again(tailed: Tailed) -> None:
    tailed.append("old\n")
    tailed.start(from_start=False)
    wait_until(lambda: Spool(tailed._spool_path, 1 << 20).mark("app"), "a mark without a line")
    tailed.stop()
    tailed.append("while away\n")
    tailed.start(from_start=False)
    tailed.wait_for("while away")


def test_a_renamed_file_is_read_to_its_end_before_the_new_one(tailed: Tailed) -> None:
    tailed.append("one\n")
    tailed.start()
    tailed.wait_for("one")
    moved = tailed.path.rename(tailed.path.with_suffix(".log.1"))
    tailed.append("three\n")
    with moved.open("a") as still_writing:
        still_writing.write("two\nno line end")
    tailed.wait_for("one", "two", "no line end", "three")

    assert len(set(tailed.ids())) == 4
    assert tailed.incidents() == {}


def test_a_writer_that_has_not_opened_the_new_file_yet_is_waited_for(
    tailed: Tailed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_QUIET_S", 0.05)
    tailed.append("one\n")
    tailed.start()
    tailed.wait_for("one")
    moved = tailed.path.rename(tailed.path.with_suffix(".log.1"))
    tailed.path.touch()
    quiet_until = time.monotonic() + 10 * 0.05
    wait_until(lambda: time.monotonic() > quiet_until, "more than quiet")
    with moved.open("a") as not_told_yet:
        not_told_yet.write("late\n")
    tailed.wait_for("one", "late")
    tailed.append("three\n")
    tailed.wait_for("one", "late", "three")

    assert tailed.incidents() == {}


def test_an_empty_new_file_is_not_waited_for_without_end(tailed: Tailed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_PATIENCE_S", 0.2)
    tailed.append("one\nno line end")
    tailed.start()
    tailed.wait_for("one")
    tailed.path.rename(tailed.path.with_suffix(".log.1"))
    tailed.path.touch()
    tailed.wait_for("one", "no line end")


@pytest.mark.parametrize("away", [False, True])
def test_a_moved_file_is_not_taken_for_an_older_one_that_begins_alike(tailed: Tailed, *, away: bool) -> None:
    for n in range(2, 8):
        tailed.path.with_suffix(f".log.{n}").write_text(f"{BANNER}\n" + "of long ago\n" * 9)
    tailed.append(f"{BANNER}\none\n")
    tailed.start()
    tailed.wait_for(BANNER, "one")
    if away:
        tailed.stop()
        tailed.append("two\n")
    moved = tailed.path.rename(tailed.path.with_suffix(".log.1"))
    if not away:
        with moved.open("a") as still_writing:
            still_writing.write("two\n")
    tailed.append(f"{BANNER}\nthree\n")
    if away:
        tailed.start()
    tailed.wait_for(BANNER, "one", "two", BANNER, "three")

    assert tailed.incidents() == {}


def test_of_several_copies_that_begin_alike_the_newest_is_read(tailed: Tailed) -> None:
    for n in range(2, 8):
        old = tailed.path.with_suffix(f".log.{n}")
        old.write_text(f"{BANNER}\n" + "of long ago\n" * 9)
        os.utime(old, (1e9, 1e9))
    tailed.append(f"{BANNER}\none\n")
    tailed.start()
    tailed.wait_for(BANNER, "one")
    tailed.stop()
    tailed.append("two\n")
    shutil.copy(tailed.path, tailed.path.with_suffix(".log.1"))
    tailed.path.write_text("three\n")
    tailed.start()
    tailed.wait_for(BANNER, "one", "two", "three")


def test_a_few_first_bytes_do_not_tell_a_copy(tailed: Tailed) -> None:
    tailed.append("one\n")
    tailed.start()
    tailed.wait_for("one")
    tailed.stop()
    tailed.path.with_suffix(".log.1").write_text("one\nof another file\n")
    tailed.path.write_text("new\n")
    tailed.start()
    tailed.wait_for("one", "new")

    assert tailed.incidents() == {("app", "moved-file-not-found"): 1}


def test_a_file_renamed_while_nobody_read_is_finished_first(tailed: Tailed) -> None:
    tailed.append("one\n")
    tailed.start()
    tailed.wait_for("one")
    tailed.stop()
    tailed.append("two\n")
    tailed.path.rename(tailed.path.with_suffix(".log.1"))
    tailed.append("three\n")
    tailed.start()
    tailed.wait_for("one", "two", "three")


def test_a_file_copied_and_truncated_is_finished_from_its_copy(tailed: Tailed) -> None:
    tailed.append(f"{BANNER}\n")
    tailed.start()
    tailed.wait_for(BANNER)
    tailed.stop()
    tailed.append("two\n")
    shutil.copy(tailed.path, tailed.path.with_suffix(".log.1"))
    tailed.path.write_text("three\n")
    tailed.start()
    tailed.wait_for(BANNER, "two", "three")

    assert len(set(tailed.ids())) == 3


@pytest.mark.parametrize("begun", ["", "hal"])
def test_a_file_truncated_and_grown_again_between_two_looks_is_read_from_its_start(tailed: Tailed, begun: str) -> None:
    tailed.append(f"one\ntwo\n{begun}")
    tailed.start(poll_interval_s=0.5)
    tailed.wait_for("one", "two")
    new = [f"new {n}" for n in range(40)]
    tailed.path.write_text("\n".join(new) + "\n")
    tailed.wait_for("one", "two", *new)

    assert tailed.incidents()["app", "file-truncated"] == 1


def test_a_file_followed_from_its_end_is_known_by_its_first_bytes_at_once(tailed: Tailed) -> None:
    tailed.append("old\n")
    tailed.start(from_start=False, poll_interval_s=0.5)
    wait_until(lambda: Spool(tailed._spool_path, 1 << 20).mark("app"), "a mark without a line")
    new = [f"new {n}" for n in range(40)]
    tailed.path.write_text("\n".join(new) + "\n")
    tailed.wait_for(*new)


def test_a_truncated_file_is_read_from_its_start_under_other_ids(tailed: Tailed) -> None:
    tailed.append("one\ntwo\n")
    tailed.start()
    tailed.wait_for("one", "two")
    tailed.path.write_text("one\n")
    tailed.wait_for("one", "two", "one")

    assert len(set(tailed.ids())) == 3
    assert tailed.incidents() == {("app", "file-truncated"): 1, ("app", "moved-file-not-found"): 1}


def test_a_file_that_was_truncated_and_has_outgrown_its_past_is_recognised(tailed: Tailed) -> None:
    tailed.append("one\ntwo\n")
    tailed.start()
    tailed.wait_for("one", "two")
    tailed.stop()
    tailed.path.write_text("another beginning and much more of it\n")
    tailed.start()
    tailed.wait_for("one", "two", "another beginning and much more of it")


def test_files_of_several_rotations_are_named_where_they_are_skipped(tailed: Tailed) -> None:
    tailed.append("one\n")
    tailed.start()
    tailed.wait_for("one")
    tailed.stop()
    tailed.append("two\n")
    tailed.path.rename(tailed.path.with_suffix(".log.2"))
    tailed.path.with_suffix(".log.1").write_text("skipped\n")
    tailed.append("three\n")
    tailed.start()
    tailed.wait_for("one", "two", "three")

    assert tailed.incidents() == {("app", "rotated-files-skipped"): 1}


def test_a_line_over_the_limit_is_cut_one_byte_behind_it(tailed: Tailed) -> None:
    tailed.append("x" * 100_000 + "\n" + "y" * 10 + "\n")
    tailed.start(max_event_bytes=10)
    tailed.wait_for("x" * 11, "y" * 10)

    assert [identity.split(".")[1] for identity in tailed.ids()] == ["0", "100001"]


def test_a_file_larger_than_a_source_may_hold_comes_whole(tailed: Tailed) -> None:
    lines = [f"{n:07} {'x' * 90}" for n in range(100_000)]
    tailed.append("\n".join(lines) + "\n")
    tailed.start()
    tailed.wait_for(*lines)


def test_the_flow_sees_the_ids_that_the_tail_gave(tailed: Tailed) -> None:
    tailed.append("one\ntwo\n")
    tailed.start()
    tailed.wait_for("one", "two")
    tailed.stop()
    partition = SpoolPartition(tailed.reader, None, Event(), batch_events=64, drain=True)

    assert [id_ for _ in "12" for batch in partition.next_batch() for id_ in batch.ids] == tailed.ids()
