import sqlite3
import subprocess
import sys
from pathlib import Path

from dataflows.connectors.private_file import make_private

# Opens the database and closes it as the last one would: SQLite then takes its log away.
COME_AND_GO = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); db.execute('SELECT * FROM t'); db.close()"


def test_a_new_file_is_for_our_own_eyes_and_one_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "db"
    make_private(path)
    assert (path.stat().st_mode & 0o777, path.read_bytes()) == (0o600, b"")
    path.write_bytes(b"x")
    path.chmod(0o640)
    make_private(path)
    assert (path.stat().st_mode & 0o777, path.read_bytes()) == (0o640, b"x")


def test_what_another_connection_of_this_process_writes_survives_that_others_come_and_go(tmp_path: Path) -> None:
    path = tmp_path / "db"
    make_private(path)
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("CREATE TABLE t (n INTEGER)")
    make_private(path)
    subprocess.run([sys.executable, "-c", COME_AND_GO, str(path)], check=True)
    db.execute("INSERT INTO t VALUES (1)")

    with sqlite3.connect(path) as other:
        assert other.execute("SELECT n FROM t").fetchall() == [(1,)]
