"""What a far end has not taken yet, in order, on disk: SQLite in WAL mode, synchronous, by number."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from threading import Lock

import msgspec

from dataflows.connectors.private_file import make_private
from models.contracts.errors import UnavailableError

_SCHEMA = "CREATE TABLE IF NOT EXISTS chunk (last INTEGER PRIMARY KEY, bytes INTEGER NOT NULL, body BLOB NOT NULL)"
_PRAGMAS = (
    "auto_vacuum=INCREMENTAL",  # takes effect on a new file; what an outage filled is given back
    "journal_mode=WAL",
    "synchronous=FULL",
    "journal_size_limit=4194304",
)
_ROW_BYTES = 256 << 10
_FREED_PAGES = 4096  # given back at a time: 16 MiB


class Backlog:
    """Payloads by number, rising without gaps from the first kept one. Safe for several threads."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        """Open or make the file.

        Raises:
            UnavailableError: it cannot be opened, or is no backlog.
        """
        self._path = path
        self._max_bytes = max_bytes
        self._lock = Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            make_private(path)  # SQLite gives the log beside it the same mode
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
            for pragma in _PRAGMAS:
                self._db.execute(f"PRAGMA {pragma}")
            self._db.execute(_SCHEMA)
            found = self._db.execute("SELECT coalesce(sum(bytes), 0), coalesce(max(last), 0) FROM chunk").fetchone()
            first = self._db.execute("SELECT last, body FROM chunk ORDER BY last LIMIT 1").fetchone()
            before_first: int = first[0] - len(_unpack(first[1])) if first else found[1]
        except (OSError, sqlite3.Error, msgspec.DecodeError) as error:
            raise UnavailableError(
                f"backlog {path}: cannot be opened: {error}; move it away to go on without it"
            ) from error
        self._bytes: int = found[0]
        self.last: int = found[1]
        """The number of the last payload kept here, or once kept here."""
        self.trimmed: int = before_first
        """Every payload up to this number is gone."""

    @property
    def size(self) -> int:
        """What the payloads take, without SQLite's own share."""
        return self._bytes

    def room_for(self, size: int) -> bool:
        """Return whether `size` more bytes stay within the limit; anything fits an empty backlog."""
        return self._bytes == 0 or self._bytes + size <= self._max_bytes

    def append(self, last: int, payloads: Sequence[bytes]) -> None:
        """Keep payloads, the last of which has the number `last`; on return they survive the loss of power.

        The limit is the caller's to keep, since only the caller can wait.

        Raises:
            UnavailableError: the disk does not take them; none is kept.
        """
        number = last - len(payloads)
        rows = []
        for chunk in _chunks(payloads):
            number += len(chunk)
            rows.append((number, sum(map(len, chunk)), _pack(chunk)))
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    self._db.executemany("INSERT INTO chunk VALUES (?, ?, ?)", rows)
                    self._db.execute("COMMIT")
                finally:
                    if self._db.in_transaction:
                        self._db.execute("ROLLBACK")
            except sqlite3.Error as error:
                raise UnavailableError(f"backlog {self._path}: {len(rows)} rows cannot be written: {error}") from error
            self.last = last
            self._bytes += sum(size for _, size, _ in rows)

    def after(self, number: int, most_bytes: int, most_payloads: int) -> tuple[int, list[bytes]]:
        """Return the payloads that follow `number`, and the number of the last of them.

        Bytes are counted by rows, so the answer can be one row longer than `most_bytes`.

        Raises:
            UnavailableError: the disk cannot be read, or what it gives back is not what was written.
        """
        found: list[bytes] = []
        last = number
        with self._lock:
            try:
                for last, size, body in self._db.execute("SELECT * FROM chunk WHERE last > ? ORDER BY last", (number,)):
                    payloads = _unpack(body)
                    found += payloads[max(0, number - (last - len(payloads))) :]
                    most_bytes -= size
                    if most_bytes <= 0 or len(found) >= most_payloads:
                        break
            except (sqlite3.Error, msgspec.DecodeError) as error:
                raise UnavailableError(
                    f"backlog {self._path}: cannot be read behind number {number}: {error}; nothing is skipped. Where "
                    "the disk is broken, stop the gateway, move the file away and start without it"
                ) from error
        beyond = max(0, len(found) - most_payloads)
        return last - beyond, found[:most_payloads]

    def trim(self, number: int) -> None:
        """Forget every row that ends at `number` or before.

        Raises:
            UnavailableError: the disk cannot be written; the rows stay and are delivered again.
        """
        with self._lock:
            if self._bytes == 0:
                return
            try:
                gone = self._db.execute("DELETE FROM chunk WHERE last <= ? RETURNING bytes", (number,)).fetchall()
                self.trimmed = max(self.trimmed, min(number, self.last))
                self._bytes -= sum(size for (size,) in gone)
                if self._bytes == 0:
                    # `execute` would step this pragma once, and so free one page.
                    self._db.executescript(f"PRAGMA incremental_vacuum({_FREED_PAGES})")
            except sqlite3.Error as error:
                raise UnavailableError(f"backlog {self._path}: cannot be trimmed: {error}") from error

    def close(self) -> None:
        """Close the file; every append is on disk already."""
        with self._lock:
            self._db.close()


def held(path: Path) -> int:
    """Return how many payloads a backlog holds, and leave no trace.

    Raises:
        UnavailableError: it cannot be read, or is no backlog.
    """
    # Without a log nobody has it open; to read it as one that may change would leave an empty log behind.
    access = "mode=ro" if path.with_name(f"{path.name}-wal").exists() else "immutable=1"
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?{access}", uri=True, timeout=5.0)) as db:
            return sum(len(_unpack(body)) for (body,) in db.execute("SELECT body FROM chunk"))
    except (sqlite3.Error, msgspec.DecodeError) as error:
        raise UnavailableError(f"backlog {path}: cannot be read: {error}") from error


def _chunks(payloads: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Cut payloads into rows that are read back without much memory."""
    chunk: list[bytes] = []
    size = 0
    for payload in payloads:
        chunk.append(payload)
        size += len(payload)
        if size >= _ROW_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _pack(payloads: Sequence[bytes]) -> bytes:
    return msgspec.msgpack.encode(payloads)


def _unpack(body: bytes) -> list[bytes]:
    return msgspec.msgpack.decode(body, type=list[bytes])
