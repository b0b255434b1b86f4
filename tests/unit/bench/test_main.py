"""`./just bench` measures what was asked for, and one measurement that fails leaves the others."""

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from bench.__main__ import NAMES_BY_MODULE, choose, main, modules_of, read


def test_without_a_choice_everything_is_measured() -> None:
    assert modules_of(choose(())) == list(NAMES_BY_MODULE)


def test_a_module_stands_for_its_rows_and_a_row_for_itself() -> None:
    assert choose(("pipeline", "udp_lost")) == {"pipeline_events_per_s", "udp_lost"}
    assert modules_of({"udp_lost"}) == ["gateway"]


def test_an_unknown_name_is_refused_with_those_that_exist() -> None:
    with pytest.raises(click.BadParameter, match=r"speed: neither a module .*'gateway'.* nor a row .*'udp_lost'"):
        choose(("speed",))

    assert CliRunner().invoke(main, ["--only", "speed"]).exit_code == 2


def test_no_results_yet_are_no_rows(tmp_path: Path) -> None:
    assert read(tmp_path / "bench.json") == []
