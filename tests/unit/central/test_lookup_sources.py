"""A CSV file and a query of a database as tables: read whole, or refused whole."""

import os
import sqlite3
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from central.lookup_sources import CompactedTopic, CsvFile, SqlQuery
from dataflows.connectors.kafka import Cluster
from models.contracts.errors import ConfigError, InputError, UnavailableError

CSV = "host,owner,criticality\nweb-1,shop,high\nlab-1,,low\n"
STATEMENT = "SELECT host, owner, criticality, patched, rack FROM assets WHERE active"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "assets.csv"
    path.write_text(CSV)
    return path


def csv(path: Path, most_rows: int = 100) -> CsvFile:
    return CsvFile(path, "host", most_rows)


def write_at(path: Path, content: str, mtime: int) -> None:
    """Replace a file as one should, with a time of its own: the disk's clock may be coarse."""
    fresh = path.with_suffix(".new")
    fresh.write_text(content)
    os.utime(fresh, (mtime, mtime))
    fresh.rename(path)


def test_a_file_is_a_table_of_its_columns_without_those_that_are_empty(file: Path) -> None:
    table = csv(file).read()

    assert table is not None
    assert table.find("WEB-1") == {"owner": "shop", "criticality": "high"}
    assert table.find("lab-1") == {"criticality": "low"}
    assert len(table) == 2


def test_a_file_is_read_again_when_it_was_replaced_and_not_before(file: Path) -> None:
    source = csv(file)
    source.read()
    assert source.read() is None
    write_at(file, "host,owner\nweb-1,bank\n", 1_700_000_000)
    table = source.read()

    assert table is not None
    assert table.find("web-1") == {"owner": "bank"}
    assert source.read() is None


def test_a_file_with_a_byte_order_mark_quotes_and_empty_lines_is_read(file: Path) -> None:
    file.write_bytes(b'\xef\xbb\xbfhost,owner\r\n"web-1","Shop, ""the"" one"\r\n\r\n,nobody\r\n')
    table = csv(file).read()

    assert table is not None
    assert (table.find("web-1"), len(table)) == ({"owner": 'Shop, "the" one'}, 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"found the columns \[\], wanted `host` among them"),
        ("name,owner\na,b\n", r"found the columns \['name', 'owner'\], wanted `host` among them"),
        ("host,owner\nweb-1,shop\nweb-2\n", r"record 3: found 1 columns, wanted 2"),
        ('host,owner\nweb-1,"shop\n', r"unexpected end of data; wanted CSV in UTF-8"),
        ("host,owner\n" + "".join(f"web-{n},shop\n" for n in range(101)), r"more than 100 rows"),
    ],
)
def test_a_file_that_is_no_table_is_refused_whole(file: Path, content: str, message: str) -> None:
    file.write_text(content)

    with pytest.raises(InputError, match=message):
        csv(file).read()


def test_a_file_that_is_not_utf_8_is_refused(file: Path) -> None:
    file.write_bytes("host,owner\nweb-1,Müller\n".encode("latin-1"))

    with pytest.raises(InputError, match="wanted CSV in UTF-8"):
        csv(file).read()


def test_a_file_that_is_gone_is_an_outage_and_comes_back(file: Path) -> None:
    source = csv(file)
    source.read()
    file.unlink()
    with pytest.raises(UnavailableError, match="No such file"):
        source.read()
    write_at(file, CSV, 1_700_000_000)

    assert source.read() is not None


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "assets.sqlite3"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE assets (host, owner, criticality, patched, rack, active)")
        connection.executemany(
            "INSERT INTO assets VALUES (?, ?, ?, ?, ?, ?)",
            [
                ("web-1", "shop", "high", "2026-01-31", 7, True),
                ("lab-1", None, "low", None, 2.5, True),
                ("old-1", "shop", "high", None, 1, False),
                (None, "nobody", "low", None, 1, True),
            ],
        )
    connection.close()
    return path


def sql(path: Path, statement: str = STATEMENT, key: str = "host", most_rows: int = 100) -> SqlQuery:
    return SqlQuery(f"sqlite:///{path}", statement, key, most_rows)


def test_a_query_is_a_table_of_its_columns_without_those_that_are_null(database: Path) -> None:
    table = sql(database).read()

    assert table.find("web-1") == {"owner": "shop", "criticality": "high", "patched": "2026-01-31", "rack": "7"}
    assert table.find("lab-1") == {"criticality": "low", "rack": "2.5"}
    assert len(table) == 2


def test_a_query_is_asked_anew_each_time(database: Path) -> None:
    source = sql(database)
    source.read()
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE assets SET owner = 'bank' WHERE host = 'web-1'")
    connection.close()

    assert (source.read().find("web-1") or {})["owner"] == "bank"


def test_a_query_without_its_key_is_refused(database: Path) -> None:
    with pytest.raises(InputError, match=r"found the columns \['owner'\], wanted `host` among them"):
        sql(database, "SELECT owner FROM assets").read()


def test_a_query_of_more_rows_than_agreed_is_refused(database: Path) -> None:
    with pytest.raises(InputError, match="more than 1 rows"):
        sql(database, most_rows=1).read()


def test_a_query_that_fails_is_an_outage_in_the_words_of_the_database(database: Path) -> None:
    with pytest.raises(UnavailableError) as caught:
        sql(database, "SELECT host FROM nowhere").read()

    assert str(caught.value) == f"sqlite:///{database}: no such table: nowhere"


def test_a_database_that_is_not_there_is_an_outage(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="unable to open database file"):
        sql(tmp_path / "nowhere" / "assets.sqlite3").read()


@pytest.mark.parametrize("url", ["assets", "oracle+nothing://u:secret@host/db"])
def test_a_url_that_is_none_is_a_mistake_in_the_configuration_and_no_password_is_said(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SqlQuery(url, STATEMENT, "host", 1)

    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("place", ["u:secret@127.0.0.1:1/db", "127.0.0.1:1/db?user=u&password=secret"])
def test_a_password_is_said_nowhere(place: str) -> None:
    source = SqlQuery(f"postgresql+psycopg://{place}", STATEMENT, "host", 1)

    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1") as caught:
        source.read()
    assert "secret" not in str(caught.value)


class Followed(CompactedTopic):
    """A topic whose records a test puts there."""

    def __init__(self) -> None:
        super().__init__(Cluster(brokers="127.0.0.1:1"), "assets", 100)
        self.records: list[tuple[bytes, bytes]] = []

    def _read_whole(self) -> bool:
        for record in self.records:
            self._take(*record)
        return True


def test_a_record_with_a_bad_byte_or_that_is_too_deep_is_counted_and_the_others_stand() -> None:
    source = Followed()
    source.records = [
        (b"web-1", b'{"owner": "shop"}'),
        (b"web-1", b'{"owner": "\xff"}'),
        (b"web-2", b'{"owner": ' + b"[" * 100_000),
        (b"web-3", b'{"owner": "bank"}'),
    ]
    with capture_logs() as logs:
        table = source.read()

    assert table is not None
    assert (table.find("web-1"), table.find("web-3"), len(table)) == ({"owner": "shop"}, {"owner": "bank"}, 2)
    assert [(each["event"], each["records"]) for each in logs] == [("lookup_records_refused", 2)]
