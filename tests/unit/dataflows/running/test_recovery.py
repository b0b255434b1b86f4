from datetime import timedelta
from pathlib import Path

import pytest

from dataflows.running.recovery import RunOptions, recovery_config, run_options
from models.contracts.errors import ConfigError


def test_without_options_everything_is_ours_to_choose() -> None:
    assert run_options(["edge.gateway"], {}) == RunOptions()


def test_recovery_options_are_honoured_from_arguments_and_environment() -> None:
    wanted = RunOptions(recovery_dir=Path("rec"), epoch=timedelta(seconds=2), backup=timedelta(seconds=60))
    assert run_options(["edge.gateway", "-r", "rec", "-s", "2", "-b", "60"], {}) == wanted
    assert (
        run_options(
            ["edge.gateway"],
            {
                "BYTEWAX_RECOVERY_DIRECTORY": "rec",
                "BYTEWAX_SNAPSHOT_INTERVAL": "2",
                "BYTEWAX_RECOVERY_BACKUP_INTERVAL": "60",
            },
        )
        == wanted
    )
    assert run_options(["edge.gateway", "-r", "mine"], {"BYTEWAX_RECOVERY_DIRECTORY": "rec"}) == RunOptions(
        recovery_dir=Path("mine")
    )


def test_an_epoch_of_0_is_an_epoch_per_batch_and_not_the_default() -> None:
    assert run_options(["edge.gateway", "-s", "0"], {}).epoch == timedelta(0)


def test_more_than_one_worker_in_a_process_is_refused_with_what_to_do_instead() -> None:
    with pytest.raises(ConfigError, match="run several"):
        run_options(["edge.gateway", "-w", "2"], {})


def test_a_process_of_a_cluster_knows_its_number_and_the_others() -> None:
    options = run_options(["central.triage", "-i", "1", "-a", "a:1;b:2"], {})
    assert (options.process, options.addresses) == (1, ("a:1", "b:2"))


@pytest.mark.parametrize("arguments", [["-i", "0"], ["-a", "a:1;b:2"], ["-i", "2", "-a", "a:1;b:2"]])
def test_half_of_a_cluster_is_refused(arguments: list[str]) -> None:
    with pytest.raises(ConfigError, match="wanted both"):
        run_options(["central.triage", *arguments], {})


def test_one_worker_may_be_asked_for() -> None:
    assert run_options(["edge.gateway", "-w", "1"], {}) == RunOptions()


def test_the_store_is_made_once_and_then_left_alone(tmp_path: Path) -> None:
    recovery_config(tmp_path / "recovery", timedelta(0))
    (part,) = (tmp_path / "recovery").iterdir()
    before = part.stat()
    recovery_config(tmp_path / "recovery", timedelta(0))
    assert part.stat() == before


def test_what_a_crash_left_of_making_the_store_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "recovery.new").mkdir()
    (tmp_path / "recovery.new" / "part-0.sqlite3").write_bytes(b"half")
    recovery_config(tmp_path / "recovery", timedelta(0))
    assert [path.name for path in tmp_path.iterdir()] == ["recovery"]


def test_an_empty_directory_is_filled_and_a_foreign_one_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    recovery_config(tmp_path / "empty", timedelta(0))
    assert any((tmp_path / "empty").iterdir())
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "letters.txt").write_text("mine")
    with pytest.raises(ConfigError, match="foreign: cannot be made"):
        recovery_config(tmp_path / "foreign", timedelta(0))
    assert (tmp_path / "foreign" / "letters.txt").read_text() == "mine"
