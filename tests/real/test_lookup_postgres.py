"""A query of a real PostgreSQL as a table: with time limits, without the right to write, over a crash."""

import signal
from collections.abc import Iterator

import pytest

from central.local_postgres import LocalPostgres, missing
from central.lookup_sources import SqlQuery
from models.contracts.errors import UnavailableError
from tests.conftest import absent

pytestmark = pytest.mark.timeout(600)

ASSETS = "SELECT * FROM (VALUES ('web-1', 'shop', true), ('10.0.0.0/8', NULL, false)) AS assets (host, owner, known)"


@pytest.fixture(scope="module")
def postgres() -> Iterator[LocalPostgres]:
    if missing():
        absent(missing())
    server = LocalPostgres()
    try:
        server.start()
        yield server
    finally:
        server.remove()


def query(postgres: LocalPostgres, statement: str) -> SqlQuery:
    return SqlQuery(postgres.url, statement, "host", 5000)


def test_a_query_is_a_table(postgres: LocalPostgres) -> None:
    table = query(postgres, ASSETS).read()

    assert (table.find("web-1"), table.find("10.1.2.3")) == ({"owner": "shop", "known": "true"}, {"known": "false"})


def test_a_query_of_more_rows_than_come_at_once_is_read_whole(postgres: LocalPostgres) -> None:
    table = query(postgres, "SELECT 'h' || n AS host, n AS number FROM generate_series(1, 4321) AS n").read()

    assert (len(table), table.find("h4321")) == (4321, {"number": "4321"})


def test_a_query_has_a_time_limit_and_may_not_write(postgres: LocalPostgres) -> None:
    settings = "current_setting('statement_timeout') AS within, current_setting('transaction_read_only') AS reads"
    table = query(postgres, "SELECT 'a' AS host, " + settings).read()

    assert table.find("a") == {"within": "30s", "reads": "on"}


def test_a_server_that_was_killed_is_asked_again_when_it_is_back(postgres: LocalPostgres) -> None:
    source = query(postgres, ASSETS)
    assert len(source.read()) == 2
    postgres.stop(signal.SIGKILL)
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1"):
        source.read()
    postgres.start()

    assert len(source.read()) == 2
