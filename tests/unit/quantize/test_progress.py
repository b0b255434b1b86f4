from collections.abc import Callable
from types import SimpleNamespace

import pytest

from quantize import progress as module
from quantize.progress import Progress


@pytest.fixture
def pass_time(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """A clock that stands until it is told how many seconds have passed."""
    now = [1_000.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def later(seconds: float) -> None:
        now[0] += seconds

    return later


def test_away_from_a_terminal_there_is_a_line_a_minute_with_what_is_left(
    pass_time: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    tick = Progress().bar("training")
    for done in range(1, 101):
        tick(done, 400)
        pass_time(1.5)

    assert capsys.readouterr().err.splitlines() == [
        "  training: 41 of 400, about 9 min left",
        "  training: 81 of 400, about 8 min left",
    ]


def test_what_was_done_in_another_sitting_makes_nothing_faster(
    pass_time: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    tick = Progress().bar("training")
    pass_time(300.0)  # until everything is read again
    for done in range(2_001, 2_012):
        tick(done, 3_000)
        pass_time(6.0)

    assert capsys.readouterr().err == "  training: 2011 of 3000, about 99 min left\n"


def test_nothing_is_said_at_the_end(pass_time: Callable[[float], None], capsys: pytest.CaptureFixture[str]) -> None:
    tick = Progress().bar("training")
    tick(64, 128)
    pass_time(90.0)
    tick(128, 128)

    assert capsys.readouterr().err == ""
