"""Tables that are kept up to date while a flow runs, whatever becomes of their sources."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import isnan
from pathlib import Path
from threading import Event
from time import monotonic, sleep
from typing import Any

import pytest
from structlog.testing import capture_logs

from central.lookups import CsvLookup, KafkaLookup, Lookups, LookupSection, Refresher, SqlLookup
from dataflows.backoff import Backoff
from dataflows.connectors.kafka import Cluster
from dataflows.lookup import Freshness, Table, Tables
from dataflows.operators.enrich import Enrichment
from models.contracts.errors import ConfigError, UnavailableError
from models.contracts.wire import decode_toml

CLUSTER = Cluster(brokers="127.0.0.1:1")
WANTED = Enrichment(table="assets", key="host", facts=("owner",))


def section(path: Path, **more: Any) -> CsvLookup:
    return CsvLookup(name="assets", path=str(path), key="host", look_every_s=0.02, **more)


@contextmanager
def running(*sections: LookupSection) -> Iterator[Lookups]:
    lookups = Lookups(sections, CLUSTER)
    lookups.start()
    try:
        yield lookups
    finally:
        lookups.close()


def until(true: Callable[[], bool]) -> None:
    deadline = monotonic() + 20
    while not true():
        assert monotonic() < deadline
        sleep(0.005)


def write(path: Path, owner: str) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(f"host,owner\nweb-1,{owner}\n")
    fresh.rename(path)


def owner(tables: Tables) -> str | None:
    return (tables.find("assets", "web-1") or {}).get("owner")


def test_a_file_that_is_replaced_while_we_run_is_in_force_without_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "assets.csv"
    write(path, "shop")
    with running(section(path)) as lookups:
        assert (owner(lookups.tables), lookups.tables.state("assets")) == ("shop", "fresh")
        write(path, "a bank")
        until(lambda: owner(lookups.tables) == "a bank")


@pytest.mark.parametrize(("when_stale", "state"), [("keep", "stale"), ("without", "away"), ("wait", None)])
def test_a_source_that_goes_away_leaves_its_table_until_that_is_too_old(
    tmp_path: Path, when_stale: Any, state: str | None
) -> None:
    path = tmp_path / "assets.csv"
    write(path, "shop")
    with running(section(path, fresh_s=1.0, when_stale=when_stale)) as lookups:
        path.unlink()
        assert lookups.tables.state("assets") == "fresh"
        if state is None:
            until(lambda: is_waited_for(lookups.tables))
        else:
            until(lambda: lookups.tables.state("assets") == state)
        assert owner(lookups.tables) == "shop"
        write(path, "a bank")
        until(lambda: owner(lookups.tables) == "a bank")
        assert lookups.tables.state("assets") == "fresh"


def is_waited_for(tables: Tables) -> bool:
    try:
        tables.state("assets")
    except UnavailableError:
        return True
    return False


def test_a_source_that_was_never_there_does_not_keep_us_from_starting(tmp_path: Path) -> None:
    began = monotonic()
    with running(section(tmp_path / "nowhere.csv")) as lookups:
        assert monotonic() - began < 5
        assert lookups.tables.state("assets") == "away"


class Failing:
    """A source that fails so many times."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.reads = 0

    def read(self) -> Table:
        self.reads += 1
        if self.reads <= self.times:
            raise UnavailableError(f"away for the {self.reads}. time")
        return Table([], 1)

    def close(self) -> None:
        self.reads = -1


def test_an_outage_is_said_once_and_its_end_once() -> None:
    tables, stop, source = Tables({"assets": Freshness(fresh_s=60.0, when_stale="keep")}), Event(), Failing(4)
    refresher = Refresher("assets", source, tables, 0.001, stop, backoff=Backoff(first_s=0.001))
    with capture_logs() as logs:
        refresher.start()
        until(lambda: source.reads > 8)
        stop.set()
        refresher.close()

    assert [(each["event"], each.get("reason")) for each in logs] == [
        ("lookup_failing", "away for the 1. time"),
        ("lookup_recovered", None),
    ]
    until(lambda: source.reads == -1)  # closed, by the thread that read it


class Broken(Failing):
    """A source that fails in a way that nobody thought of."""

    def read(self) -> Table:
        try:
            return super().read()
        except UnavailableError:
            raise ZeroDivisionError from None


def test_what_nobody_thought_of_is_said_and_tried_again_and_the_thread_lives() -> None:
    tables, stop, source = Tables({"assets": Freshness(fresh_s=60.0, when_stale="keep")}), Event(), Broken(2)
    refresher = Refresher("assets", source, tables, 0.001, stop, backoff=Backoff(first_s=0.001))
    with capture_logs() as logs:
        refresher.start()
        until(lambda: tables.state("assets") == "fresh")
        stop.set()
        refresher.close()

    assert [(each["event"], each["log_level"]) for each in logs] == [
        ("lookup_failed", "error"),
        ("lookup_failed", "error"),
        ("lookup_recovered", "info"),
    ]


def test_how_old_a_table_is_can_be_asked_at_any_time(tmp_path: Path) -> None:
    path = tmp_path / "assets.csv"
    lookups = Lookups([section(path)], CLUSTER)
    (age_s,) = lookups.ages_s().values()
    assert isnan(age_s())

    write(path, "shop")
    with running(section(path)) as lookups:
        (age_s,) = lookups.ages_s().values()
        assert 0 <= age_s() < 60


def test_what_is_to_be_looked_up_is_checked_against_the_tables(tmp_path: Path) -> None:
    lookups = Lookups([section(tmp_path / "assets.csv")], CLUSTER)

    assert lookups.enriching(()) is None
    assert lookups.enriching((WANTED,)) is not None
    with pytest.raises(ConfigError, match=r"found `table` people, wanted one of \['assets'\]"):
        lookups.enriching((Enrichment(table="people", key="host", facts=()),))
    with pytest.raises(ConfigError, match="found a fact `assets`, wanted a name that no table has"):
        lookups.enriching((Enrichment(table="assets", key="host", facts=("owner", "assets")),))


def test_two_tables_of_one_name_are_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="wanted each name once"):
        Lookups([section(tmp_path / "a.csv"), section(tmp_path / "b.csv")], CLUSTER)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('kind = "csv"\nname = "assets"\npath = "a.csv"\nkey = "host"', CsvLookup),
        ('kind = "sql"\nname = "assets"\nurl = "sqlite:///a"\nstatement = "SELECT 1"\nkey = "host"', SqlLookup),
        ('kind = "kafka"\nname = "assets"\ntopic = "assets"', KafkaLookup),
    ],
)
def test_a_section_of_the_configuration_says_by_its_kind_what_it_is(text: str, kind: type) -> None:
    assert isinstance(decode_toml(text, LookupSection, "central.toml"), kind)  # type: ignore[arg-type]
