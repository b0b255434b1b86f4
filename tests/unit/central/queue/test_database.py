"""What stands behind the queue: which URLs are understood, and tables that are as this version wants them."""

import stat
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.dialects import sqlite

from central.queue.database import Database, database_url
from central.queue.schema import METADATA, VERSION_TABLE, Words
from models.contracts.errors import ConfigError, UnavailableError

OPEN = """
import sys
from central.queue.store import Store
from tests.checks.queue_store import put, waiting
sys.stdin.readline()
store = Store(sys.argv[1])
put(store, waiting(id=sys.argv[2]))
"""


def file_url(path: Path) -> str:
    return f"sqlite:///{path}"


@pytest.mark.parametrize(
    ("given_url", "found"),
    [
        ("queue.sqlite3", "found no URL"),
        ("", "found no URL"),
        ("sqlite://", "found `sqlite://`"),
        ("sqlite:///:memory:", "found `sqlite:///%3Amemory%3A`"),
        ("mysql://root:secret@db/queue", r"found `mysql://root:\*\*\*@db/queue`"),
    ],
)
def test_a_url_of_no_database_that_we_know_is_the_operators_to_mend(given_url: str, found: str) -> None:
    with pytest.raises(ConfigError, match=rf"database: {found}, wanted `sqlite:///PATH` or `postgresql\+psycopg://"):
        database_url(given_url)


def test_postgresql_needs_no_driver_to_be_named() -> None:
    assert database_url("postgresql://a@b/c") == database_url("postgresql+psycopg://a@b/c")


def test_the_migrations_make_what_the_schema_says(tmp_path: Path) -> None:
    database = Database(database_url(file_url(tmp_path / "queue.sqlite3")))
    with database.reading() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE, "compare_type": True})
        differences = compare_metadata(context, METADATA)
        indices = {row.name for row in connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'index'"))}

    assert differences == []
    assert {"queue_items_order", "queue_items_to_publish", "queue_items_superseded"} <= indices


def test_a_file_is_nobody_elses_to_read_and_synced_at_every_commit(tmp_path: Path) -> None:
    path = tmp_path / "state" / "queue.sqlite3"
    database = Database(database_url(file_url(path)))

    with database.reading() as connection:
        assert connection.scalar(text("PRAGMA synchronous")) == 2  # FULL
        assert connection.scalar(text("PRAGMA journal_mode")) == "wal"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_database_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    url = database_url(file_url(tmp_path / "queue.sqlite3"))
    database = Database(url)
    with database.writing() as connection:
        connection.execute(text("UPDATE queue_version SET version_num = 'later'"))

    with pytest.raises(UnavailableError, match=r"its tables are of a later version: .*'later'; changed nothing"):
        Database(url)


def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database" * 100)

    with pytest.raises(UnavailableError, match="file is not a database; what is to be written waits"):
        Database(database_url(file_url(path)))
    assert path.read_text() == "not a database" * 100


def test_a_folder_that_cannot_be_made_is_an_outage_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")

    with pytest.raises(UnavailableError, match=r"queue\.sqlite3: .*; the queue cannot be kept there"):
        Database(database_url(file_url(tmp_path / "state" / "queue.sqlite3")))


def test_processes_that_open_a_new_file_at_once_all_can(tmp_path: Path) -> None:
    url = file_url(tmp_path / "queue.sqlite3")
    openers = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN, url, f"o.{number}"], stdin=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for number in range(4)
    ]
    try:
        for opener in openers:
            opener.stdin.write(b"go\n")
            opener.stdin.flush()
        said = [opener.communicate(timeout=110)[1].decode() for opener in openers]
    finally:
        for opener in openers:
            opener.kill()
            opener.wait()

    assert said == [""] * 4
    with Database(database_url(url)).reading() as connection:
        assert connection.scalar(text("SELECT count(*) FROM queue_items")) == 4


@given(st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from("\\0\0")), max_size=20))
def test_any_text_is_kept_without_nul_and_read_back(words: str) -> None:
    kept = Words().process_bind_param(words, sqlite.dialect())

    assert kept is not None
    assert "\0" not in kept
    assert Words().process_result_value(kept, sqlite.dialect()) == words
