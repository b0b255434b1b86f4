"""A reserve that cannot be made is said once and tried again, not at every look."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from dataflows.running import disk_reserve
from dataflows.running.disk_reserve import DiskReserve


def test_a_reserve_that_cannot_be_made_is_said_once_and_not_tried_at_every_look(tmp_path: Path) -> None:
    obstacle = tmp_path / "reserve.new"
    obstacle.mkdir()
    reserve = DiskReserve(tmp_path)
    with capture_logs() as logged:
        reserve.look()
        obstacle.rmdir()
        reserve.look()

    assert [entry["event"] for entry in logged] == ["disk_reserve_missing"]
    assert not (tmp_path / "reserve").exists()


def test_a_reserve_that_could_not_be_made_is_tried_again_and_a_new_failure_is_said_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_reserve, "_AGAIN_S", 0.0)
    obstacle = tmp_path / "reserve.new"
    reserve = DiskReserve(tmp_path)
    with capture_logs() as logged:
        obstacle.mkdir()
        reserve.look()
        reserve.look()
        obstacle.rmdir()
        reserve.look()
        assert (tmp_path / "reserve").stat().st_size == 8 << 20
        reserve.give_up()
        obstacle.mkdir()
        reserve.look()

    assert [entry["event"] for entry in logged] == ["disk_reserve_missing"] * 2
