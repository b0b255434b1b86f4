"""A growing file into the group commit, through rotation and truncation, each line once.

Where reading stands is committed together with the lines read, so that a crash neither repeats nor skips one. A file
is told from its successor by device, inode and its first bytes; what was not read of it before it was moved or copied
away is looked for beside it. A copy can be told by its first bytes alone, so that it takes all of them, and of several
that have them the newest is taken. A file that is truncated and at once written again with the very same first bytes,
beyond where reading stood, is not noticed.
"""

import contextlib
import glob
import hashlib
import heapq
import io
import os
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog
from msgspec import Struct
from msgspec.structs import replace

from dataflows.connectors.group_commit import Delivery, GroupCommit, Refusal
from dataflows.connectors.lines import LineCutter
from dataflows.connectors.spool import Arrival

_PIECE_BYTES = 64 << 10
_HEAD_BYTES = 256  # of a file: they never change while lines are only added
_ROOM_S = 0.2
_QUIET_S = 1.0  # a file that was moved away is left when another is written at its path, and this one no longer
_PATIENCE_S = 30.0  # or after this: a writer that never opens the new file is left behind
_SIBLINGS = 100

log = structlog.get_logger()


class FileTailSource(Struct, frozen=True, kw_only=True):
    name: str
    path: str
    max_event_bytes: int
    from_start: bool
    poll_interval_s: float


class Mark(Struct, frozen=True, array_like=True):
    """Where reading stands, and in which file."""

    device: int
    inode: int
    head: bytes  # the first bytes of the file, as far as they were read
    incarnation: int  # counts the files that had this name, and truncations
    origin: str  # names this incarnation in event ids
    offset: int


class FileTail:
    """One thread that follows one path."""

    def __init__(self, source: FileTailSource, commit: GroupCommit, mark: bytes | None) -> None:
        """Prepare to go on from `mark`, which an earlier process left in the spool."""
        self._source = source
        self._path = Path(source.path)
        self._commit = commit
        self._mark = None if mark is None else msgspec.msgpack.decode(mark, type=Mark)
        self._encoder = msgspec.msgpack.Encoder()
        self._stopping = threading.Event()
        self._absent = False
        self._thread = threading.Thread(target=self._run, name=f"file-{source.name}", daemon=True)

    def start(self) -> None:
        """Follow; without a mark and not `from_start`, from the end that the file has now."""
        if self._mark is None and not self._source.from_start:
            with contextlib.suppress(OSError), _open(self._path) as file:
                end = _last_line_end(file.fileno())
                head = os.pread(file.fileno(), min(_HEAD_BYTES, end), 0)
                mark = replace(_begin(file.fileno(), 0), head=head, offset=end)
                self._deliver(mark, [], [])  # so that a restart goes on from here, not from the end again
        self._thread.start()

    def stop(self) -> None:
        """Read no more; where reading stands is in the spool."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._follow_one()
            except OSError as error:
                if not self._absent:
                    log.warning("file_unreadable", source=self._source.name, path=str(self._path), reason=str(error))
                self._absent = True
            self._stopping.wait(self._source.poll_interval_s)

    def _follow_one(self) -> None:
        """Read one incarnation of the file to its end, and what an earlier one still holds before it."""
        with _open(self._path) as file:
            if self._absent:
                log.info("file_found", source=self._source.name, path=str(self._path))
            self._absent = False
            descriptor, mark = file.fileno(), self._mark
            if mark is None:
                mark = _begin(descriptor, 0)
            elif not _is_marked(descriptor, mark):
                self._finish_moved(mark)
                mark = _begin(descriptor, mark.incarnation + 1)
            self._mark = self._follow(descriptor, mark)

    def _follow(self, descriptor: int, mark: Mark) -> Mark:
        """Read on as the file grows, until it is truncated, or gone from its path and quiet."""
        cutter = LineCutter(self._source.max_event_bytes, mark.offset)
        read = mark  # and of the line that has begun what is there
        moved_at: float | None = None
        grown_at = time.monotonic()
        while not self._stopping.is_set():
            piece = self._read(descriptor, read.offset)
            now = time.monotonic()
            # After the read: a piece of what took the place of the lines before it is not theirs to go on with.
            if not _is_marked(descriptor, read):
                self._commit.happened(self._source.name, "file-truncated")
                return mark  # what was not read is looked for in a copy
            if piece:
                read = _behind(read, piece)
                grown_at = now
                mark = self._hand_over(mark, read.head, cutter, cutter.feed(piece))
                continue
            successor_bytes = self._successor_bytes(descriptor)
            if successor_bytes is None:
                moved_at = None
            else:
                moved_at = now if moved_at is None else moved_at
                quiet = now - max(moved_at, grown_at) >= _QUIET_S
                # An empty one was made by who moved ours, and whoever writes has not been told yet.
                if (quiet and successor_bytes > 0) or now - moved_at >= _PATIENCE_S:
                    if not quiet:
                        self._commit.happened(self._source.name, "moved-file-still-written")
                    return self._hand_over(mark, read.head, cutter, cutter.flush())
            self._stopping.wait(self._source.poll_interval_s)
        return mark

    def _finish_moved(self, mark: Mark) -> None:
        """Read what is left of a file that was moved or copied away."""
        pattern = f"{glob.escape(self._path.name)}?*"
        siblings = heapq.nlargest(_SIBLINGS, self._path.parent.glob(pattern), key=_modified_at)
        if self._finish_first(siblings, mark, _is_marked):
            return
        if len(mark.head) == _HEAD_BYTES and self._finish_first(siblings, mark, _holds):
            return
        self._commit.happened(self._source.name, "moved-file-not-found")
        log.warning("moved_file_not_found", source=self._source.name, path=str(self._path), read_bytes=mark.offset)

    def _finish_first(self, siblings: list[Path], mark: Mark, is_it: Callable[[int, Mark], bool]) -> bool:
        """Read the first that is it to its end; False where none is."""
        for sibling in siblings:
            try:
                file = _open(sibling)
            except OSError:
                continue
            with file:
                descriptor = file.fileno()
                if not is_it(descriptor, mark):
                    continue
                cutter = LineCutter(self._source.max_event_bytes, mark.offset)
                read = mark
                while not self._stopping.is_set() and (piece := self._read(descriptor, read.offset)):
                    read = _behind(read, piece)
                    mark = self._hand_over(mark, read.head, cutter, cutter.feed(piece))
                if not self._stopping.is_set():  # else the next start goes on here
                    self._hand_over(mark, read.head, cutter, cutter.flush())
                    self._tell_skipped(siblings, os.fstat(descriptor).st_mtime)
                return True
        return False

    def _tell_skipped(self, siblings: list[Path], finished_mtime: float) -> None:
        """Of several rotations while nobody read, only the first leads on; the files between are named, not read."""
        skipped = [
            sibling.name for sibling in siblings if sibling.exists() and sibling.stat().st_mtime > finished_mtime
        ]
        if skipped:
            self._commit.happened(self._source.name, "rotated-files-skipped", len(skipped))
            log.warning("rotated_files_skipped", source=self._source.name, files=", ".join(skipped))

    def _read(self, descriptor: int, at: int) -> bytes:
        while not self._commit.wait_for_room(self._source.name, _ROOM_S):
            if self._stopping.is_set():
                return b""
        return os.pread(descriptor, _PIECE_BYTES, at)

    def _hand_over(self, mark: Mark, head: bytes, cutter: LineCutter, lines: list[tuple[int, bytes]]) -> Mark:
        if not lines:
            return mark
        head = head[: cutter.offset]
        mark = replace(mark, head=head, origin=mark.origin or _origin(mark, head), offset=cutter.offset)
        self._deliver(mark, [record for _, record in lines], [str(offset) for offset, _ in lines])
        return mark

    def _deliver(self, mark: Mark, records: list[bytes], positions: list[str]) -> None:
        self._mark = mark  # now, since a read that fails starts over from here
        arrival = Arrival(self._source.name, time.time_ns() // 1_000_000, records, mark.origin, positions)
        self._commit.offer(Delivery(arrival, Refusal.REPEAT, mark=self._encoder.encode(mark)))

    def _successor_bytes(self, descriptor: int) -> int | None:
        """How large the file is that has taken our file's path, 0 where none has; None where ours is there."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return 0
        ours = os.fstat(descriptor)
        return None if (found.st_dev, found.st_ino) == (ours.st_dev, ours.st_ino) else found.st_size


def kind_of(mode: int) -> str:
    """Say in words what kind of file a mode from `stat` is that of."""
    kinds = {
        stat.S_IFREG: "a regular file",
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
    }
    return kinds.get(stat.S_IFMT(mode), "a device")


def _open(path: Path) -> io.FileIO:
    """Open a regular file; a pipe without a writer would hold us up for ever, and nothing but a file can be read anew.

    Raises:
        OSError: it cannot be opened, or is something else.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise OSError(f"{path}: found {kind_of(mode)}, wanted a regular file")
    return io.FileIO(descriptor)


def _begin(descriptor: int, incarnation: int) -> Mark:
    status = os.fstat(descriptor)
    return Mark(status.st_dev, status.st_ino, b"", incarnation, "", 0)


def _is_marked(descriptor: int, mark: Mark) -> bool:
    """Whether an open file is the marked one and has only grown since."""
    status = os.fstat(descriptor)
    return (status.st_dev, status.st_ino) == (mark.device, mark.inode) and _holds(descriptor, mark)


def _holds(descriptor: int, mark: Mark) -> bool:
    """Whether an open file holds what was read and perhaps more: the marked file, or a copy of it."""
    if os.fstat(descriptor).st_size < mark.offset:
        return False
    return os.pread(descriptor, len(mark.head), 0) == mark.head


def _behind(mark: Mark, piece: bytes) -> Mark:
    """Return where reading stands behind a piece, within a line or not."""
    head = mark.head
    if len(head) == mark.offset:
        head += piece[: _HEAD_BYTES - len(head)]
    return replace(mark, head=head, offset=mark.offset + len(piece))


def _modified_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0  # gone meanwhile


def _origin(mark: Mark, head: bytes) -> str:
    first_line = head.partition(b"\n")[0]
    seed = f"{mark.device}:{mark.inode}:{mark.incarnation}:".encode() + first_line
    return hashlib.blake2b(seed, digest_size=8).hexdigest()


def _last_line_end(descriptor: int) -> int:
    """Return the offset behind the last line feed."""
    at = os.fstat(descriptor).st_size
    while at > 0:
        begin = max(0, at - _PIECE_BYTES)
        feed = os.pread(descriptor, at - begin, begin).rfind(b"\n")
        if feed >= 0:
            return begin + feed + 1
        at = begin
    return 0
