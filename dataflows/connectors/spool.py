"""The queue on disk between the intake and the flow: a row per arrival, synced before anything is acknowledged.

One SQLite file in WAL mode. The intake appends with `synchronous=FULL`; the flow reads by sequence number and trims
what its recovery store has committed. What a source must remember (a file's offset, packet ids) and every count of an
event or a loss is written in the transaction of the arrival that it belongs to, so neither can say more or less than
what is in the spool.
"""

import os
import secrets
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec import Struct

from dataflows.connectors.private_file import make_private
from models.contracts.errors import UnavailableError
from models.contracts.scalars import UnixMillis

_FORMAT = "1"  # of the tables and of what is in `body`
_ROW_BYTES = 64  # what a row costs besides its body
_LEFT_FREE_BYTES = 16 << 20  # of the disk: trims and checkpoints need room to make room
_PAGE_BYTES = 8192
_CHECKPOINT_PAGES = 256
_BUSY_S = 5.0  # a commit or a trim of the other process takes milliseconds
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS arrivals (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, received_at_ms INTEGER NOT NULL, bytes INTEGER NOT NULL, body BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS level (
    one INTEGER PRIMARY KEY CHECK (one = 1), bytes INTEGER NOT NULL, refusing INTEGER NOT NULL
);
CREATE TRIGGER IF NOT EXISTS rises AFTER INSERT ON arrivals
    BEGIN UPDATE level SET bytes = bytes + NEW.bytes; END;
CREATE TRIGGER IF NOT EXISTS falls AFTER DELETE ON arrivals
    BEGIN UPDATE level SET bytes = bytes - OLD.bytes; END;
CREATE TABLE IF NOT EXISTS counts (
    kind TEXT, source TEXT, reason TEXT, n INTEGER NOT NULL, PRIMARY KEY (kind, source, reason)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS marks (source TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS receipts (
    source TEXT, slot INTEGER, number INTEGER NOT NULL, packet_id INTEGER NOT NULL, digest BLOB NOT NULL,
    PRIMARY KEY (source, slot)
) WITHOUT ROWID;
INSERT OR IGNORE INTO level VALUES (1, 0, 0);
"""


class SpoolFullError(UnavailableError):
    """The spool holds all it may: wait until the flow has caught up."""


class Arrival(Struct, frozen=True, array_like=True, gc=False):
    """Records that one source handed over at once, as they came but without framing.

    A record longer than the source's limit is handed on one byte longer than the limit, whatever it was: whoever
    reads it cuts it there and knows that it was cut.
    """

    source: str
    received_at_ms: UnixMillis
    records: list[bytes]
    origin: str = ""  # of `positions`
    positions: list[str] = []  # where the source itself keeps each record; none: the spool numbers them
    topics: list[str] = []  # of a broker, by which each record came; none: its source has no topics


class Receipt(Struct, frozen=True, array_like=True, gc=False):
    """A packet that is on disk; `slot` goes round, so that a bounded number is kept, and `number` does not."""

    slot: int
    number: int
    packet_id: int
    digest: bytes


class Notes(Struct, frozen=True, kw_only=True):
    """What is written in the same transaction as the arrivals it belongs to."""

    marks: Mapping[str, bytes] = {}  # by source: where it goes on after a crash
    receipts: Mapping[str, Sequence[Receipt]] = {}  # by source
    losses: Mapping[tuple[str, str], int] = {}  # by source and reason, in events
    incidents: Mapping[tuple[str, str], int] = {}  # by source and what happened: no event is known to be lost

    def __bool__(self) -> bool:
        return bool(self.marks or self.receipts or self.losses or self.incidents)


NOTHING = Notes()


class Counters(Struct, frozen=True, kw_only=True):
    """Since the spool was made. Exact: a count is committed with what it counts."""

    events: Mapping[str, int]  # accepted, by source
    losses: Mapping[tuple[str, str], int]  # by source and reason
    incidents: Mapping[tuple[str, str], int]


class SpoolStatus(Struct, frozen=True, kw_only=True):
    """How full the spool is, at one moment."""

    bytes: int
    refusing: bool  # the intake holds events back, or loses them, for want of room
    oldest_received_at_ms: UnixMillis | None  # of what is not trimmed yet
    counters: Counters


class StoredArrival(Struct, frozen=True, gc=False):
    """An arrival and its number, which is never used again."""

    seq: int
    arrival: Arrival


class Spool:
    """The writing end; one per file, in the intake."""

    def __init__(self, path: Path, max_bytes: int, *, left_free_bytes: int = _LEFT_FREE_BYTES) -> None:
        """Open or make it; it leaves `left_free_bytes` of its disk alone.

        Raises:
            UnavailableError: the disk does not let us.
        """
        self._path = path
        self._max_bytes = max_bytes
        self._left_free_bytes = left_free_bytes
        self._encoder = msgspec.msgpack.Encoder()
        self._db = _open(path, "FULL")
        self._refusing = bool(self._db.execute("SELECT refusing FROM level").fetchone()[0])

    def append(self, arrivals: Sequence[Arrival], notes: Notes = NOTHING) -> None:
        """Put all of it on disk, synced, or none of it.

        Raises:
            SpoolFullError: it does not fit under the limit now.
            UnavailableError: the disk does not take it now.
        """
        bodies = [self._encoder.encode(arrival) for arrival in arrivals]
        sizes = [len(body) + _ROW_BYTES for body in bodies]
        if bodies and not self._disk_takes(sum(sizes)):
            raise UnavailableError(
                f"spool {self._path}: its disk is full but for the {self._left_free_bytes} bytes that the flow needs "
                "to make room with; will try again"
            )
        with _transaction(self._db, self._path):
            (held,) = self._db.execute("SELECT bytes FROM level").fetchone()
            if bodies and held + sum(sizes) > self._max_bytes:
                raise SpoolFullError(
                    f"spool {self._path}: holds {held} of {self._max_bytes} bytes, {sum(sizes)} more do not fit; "
                    "waiting for the flow to catch up"
                )
            self._db.executemany(
                "INSERT INTO arrivals (received_at_ms, bytes, body) VALUES (?, ?, ?)",
                zip((arrival.received_at_ms for arrival in arrivals), sizes, bodies, strict=True),
            )
            if self._refusing and bodies:
                self._db.execute("UPDATE level SET refusing = 0")
            self._write_notes(arrivals, notes)
        if bodies:
            self._refusing = False

    def takes(self, count: int) -> bool:
        """Whether an arrival of some `count` bytes is likely to fit now."""
        try:
            (held,) = self._db.execute("SELECT bytes FROM level").fetchone()
        except sqlite3.Error:
            return False
        fits: bool = held + count + _ROW_BYTES <= self._max_bytes
        return fits and (self._disk_takes(count) or (self._give_back_log() and self._disk_takes(count)))

    def _give_back_log(self) -> bool:
        """Empty the log: it shrinks only at a commit, and nobody commits on a disk that is full of it."""
        try:
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error:
            return False
        return True

    def refuse(self, notes: Notes = NOTHING) -> None:
        """Record that room is wanting, and what was lost for it.

        Raises:
            UnavailableError: the disk does not take even this; nothing of `notes` was written.
        """
        with _transaction(self._db, self._path):
            self._db.execute("UPDATE level SET refusing = 1")
            self._write_notes((), notes)
        self._refusing = True

    def admit(self) -> None:
        """Record that there is room again, where nothing came whose being stored would say so.

        Raises:
            UnavailableError: not now.
        """
        with _transaction(self._db, self._path):
            self._db.execute("UPDATE level SET refusing = 0")
        self._refusing = False

    @property
    def refusing(self) -> bool:
        """Whether the last thing recorded was a refusal."""
        return self._refusing

    def mark(self, source: str) -> bytes | None:
        """Return what a source last asked to remember."""
        row = self._db.execute("SELECT value FROM marks WHERE source = ?", (source,)).fetchone()
        return None if row is None else bytes(row[0])

    def receipts(self, source: str) -> list[Receipt]:
        """Return the packets of a source that were last put on disk."""
        rows = self._db.execute("SELECT slot, number, packet_id, digest FROM receipts WHERE source = ?", (source,))
        return [Receipt(*row) for row in rows]

    def close(self) -> None:
        self._db.close()

    def _disk_takes(self, count: int) -> bool:
        twice = 2 * count  # once in the log, once in the file
        try:
            free = _free_bytes(self._path)
            if free >= self._left_free_bytes + twice:
                return True
            # The file does not shrink: what was trimmed is room inside it, and the disk looks as full as before.
            (pages,) = self._db.execute("PRAGMA freelist_count").fetchone()
        except (OSError, sqlite3.Error):
            return False
        reusable: int = pages * _PAGE_BYTES
        return reusable >= twice + _PAGE_BYTES and free >= self._left_free_bytes // 2 + twice

    def _write_notes(self, arrivals: Sequence[Arrival], notes: Notes) -> None:
        events: dict[tuple[str, str], int] = {}
        for arrival in arrivals:
            events[arrival.source, ""] = events.get((arrival.source, ""), 0) + len(arrival.records)
        counts = [
            (kind, source, reason, n)
            for kind, tally in (("event", events), ("loss", notes.losses), ("incident", notes.incidents))
            for (source, reason), n in tally.items()
        ]
        self._db.executemany(
            "INSERT INTO counts VALUES (?, ?, ?, ?)"
            " ON CONFLICT (kind, source, reason) DO UPDATE SET n = n + excluded.n",
            counts,
        )
        self._db.executemany("INSERT OR REPLACE INTO marks VALUES (?, ?)", notes.marks.items())
        for source, receipts in notes.receipts.items():
            self._db.executemany(
                "INSERT OR REPLACE INTO receipts VALUES (?, ?, ?, ?, ?)",
                ((source, *msgspec.structs.astuple(receipt)) for receipt in receipts),
            )


class SpoolReader:
    """The reading end: reads in order, trims, and says how full it is."""

    def __init__(self, path: Path) -> None:
        """Open or make it.

        Raises:
            UnavailableError: the disk does not let us.
        """
        self._path = path
        # A trim that a power cut undoes is done again; only what is appended must be synced.
        self._db = _open(path, "NORMAL")
        self._decoder = msgspec.msgpack.Decoder(Arrival)
        (self.id,) = self._db.execute("SELECT value FROM meta WHERE key = 'id'").fetchone()

    def read(self, seq: int, max_rows: int) -> list[StoredArrival]:
        """Return up to `max_rows` arrivals from number `seq` on, in order.

        Raises:
            UnavailableError: the disk does not let us, or what it gives back is not what was written.
        """
        try:
            rows = self._db.execute(
                "SELECT seq, body FROM arrivals WHERE seq >= ? ORDER BY seq LIMIT ?", (seq, max_rows)
            ).fetchall()
            return [StoredArrival(found, self._decoder.decode(body)) for found, body in rows]
        except (sqlite3.Error, msgspec.DecodeError) as error:
            raise UnavailableError(
                f"spool {self._path}: cannot be read from number {seq} on: {error}; nothing is skipped. Where the disk "
                "is broken, stop the gateway, keep the file aside and start without it"
            ) from error

    def trim(self, before_seq: int) -> None:
        """Delete what stands before a number.

        Raises:
            UnavailableError: not now; nothing was deleted.
        """
        with _transaction(self._db, self._path):
            self._db.execute("DELETE FROM arrivals WHERE seq < ?", (before_seq,))

    def span(self) -> tuple[int, int]:
        """Return the number of the oldest arrival that is held, and the one that the next arrival will get."""
        (last,) = self._db.execute(
            "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'arrivals'"
        ).fetchone()
        (first,) = self._db.execute("SELECT min(seq) FROM arrivals").fetchone()
        return (last + 1 if first is None else first), last + 1

    def status(self) -> SpoolStatus:
        """Say how full it is and what has been counted; callable from any one thread at a time.

        Raises:
            UnavailableError: the disk does not let us.
        """
        try:
            held, refusing = self._db.execute("SELECT bytes, refusing FROM level").fetchone()
            oldest = self._db.execute("SELECT received_at_ms FROM arrivals ORDER BY seq LIMIT 1").fetchone()
            counters = self._counters()
        except sqlite3.Error as error:
            raise UnavailableError(f"spool {self._path}: its state cannot be read: {error}") from error
        return SpoolStatus(
            bytes=held,
            refusing=bool(refusing),
            oldest_received_at_ms=None if oldest is None else oldest[0],
            counters=counters,
        )

    def close(self) -> None:
        self._db.close()

    def _counters(self) -> Counters:
        tallies: dict[str, dict[tuple[str, str], int]] = {"event": {}, "loss": {}, "incident": {}}
        for kind, source, reason, n in self._db.execute("SELECT kind, source, reason, n FROM counts"):
            tallies[kind][source, reason] = n
        events = {source: n for (source, _), n in tallies["event"].items()}
        return Counters(events=events, losses=tallies["loss"], incidents=tallies["incident"])


def _open(path: Path, synchronous: str) -> sqlite3.Connection:
    try:
        make_private(path)  # SQLite gives the log beside it the same mode
        db = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        db.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
        _enter_wal(db)
        db.execute(f"PRAGMA synchronous = {synchronous}")
        db.execute("PRAGMA temp_store = MEMORY")
        # Debian's SQLite writes zeros over all that is deleted, so that a trim would cost as much as what it trims did.
        db.execute("PRAGMA secure_delete = FAST")
        db.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        db.execute("PRAGMA journal_size_limit = 4194304")
        with _transaction(db, path):
            for statement in _statements(_SCHEMA):
                db.execute(statement)
            # Tells a spool from another one that took its place: positions in one mean nothing in the other.
            db.execute("INSERT OR IGNORE INTO meta VALUES ('id', ?)", (secrets.token_hex(4),))
            db.execute("INSERT OR IGNORE INTO meta VALUES ('format', ?)", (_FORMAT,))
            (found,) = db.execute("SELECT value FROM meta WHERE key = 'format'").fetchone()
        directory = os.open(path.parent, os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)
    except (sqlite3.Error, OSError) as error:
        raise UnavailableError(
            f"spool {path}: cannot be opened: {error}; look at the disk, the directory and its owner"
        ) from error
    if found != _FORMAT:
        raise UnavailableError(
            f"spool {path}: found format {found}, wanted {_FORMAT}; let the version that wrote it empty it, or move "
            "it away"
        )
    return db


def _free_bytes(path: Path) -> int:
    disk = os.statvfs(path)
    return disk.f_bavail * disk.f_frsize


def _enter_wal(db: sqlite3.Connection) -> None:
    """Both processes may make the file at once, and this statement does not wait for a lock as others do."""
    deadline = time.monotonic() + _BUSY_S
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _statements(script: str) -> Iterator[str]:
    """Split a script; `executescript` would commit the transaction that it runs in."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


@contextmanager
def _transaction(db: sqlite3.Connection, path: Path) -> Iterator[None]:
    try:
        db.execute("BEGIN IMMEDIATE")
        yield
        db.execute("COMMIT")
    except BaseException as error:
        # A failed COMMIT for want of space leaves the transaction open; some failures end it by themselves.
        if db.in_transaction:
            db.execute("ROLLBACK")
        if isinstance(error, sqlite3.Error):
            raise UnavailableError(f"spool {path}: {error}; nothing was written, will try again") from error
        raise
