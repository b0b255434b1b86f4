"""What is costly to make is made by one run, and nobody sees it half made."""

import threading
from pathlib import Path

import pytest

from bench.once import once


def test_runs_that_want_it_at_the_same_time_get_what_one_of_them_made(tmp_path: Path) -> None:
    made: list[str] = []
    begun, go_on = threading.Event(), threading.Event()

    def make(path: Path) -> None:
        made.append(threading.current_thread().name)
        begun.set()
        assert go_on.wait(30)
        path.write_text("whole")

    path = tmp_path / "deep" / "thing"
    threads = [threading.Thread(target=once, args=(path, make)) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert begun.wait(30)
    assert not path.exists()
    go_on.set()
    for thread in threads:
        thread.join(30)

    assert path.read_text() == "whole"
    assert len(made) == 1


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    path = tmp_path / "thing"
    path.write_text("old")

    assert once(path, lambda _: pytest.fail("made again")).read_text() == "old"


def test_a_make_that_fails_or_is_killed_leaves_nothing_in_the_way_of_the_next(tmp_path: Path) -> None:
    path = tmp_path / "thing"

    def fail(unfinished: Path) -> None:
        unfinished.write_text("half")
        raise RuntimeError("no compiler")

    def append(unfinished: Path) -> None:
        with unfinished.open("a") as file:
            file.write("whole")

    with pytest.raises(RuntimeError, match="no compiler"):
        once(path, fail)
    assert not path.exists()
    assert once(path, append).read_text() == "whole"
