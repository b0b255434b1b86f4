"""JSON lines in a file that turns over by size and by age, synced before anything counts as delivered."""

import fcntl
import os
import re
import stat
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from time import time

import structlog

from dataflows.connectors.courier import Refusal
from models.contracts.errors import UnavailableError

log = structlog.get_logger()

_TAIL_BYTES = 64 << 10  # read at a time in search of the last line's end


class JsonLinesCarrier:
    """Appends payloads, each one or more whole lines, to one file.

    * A delivery that fails half way is cut off again, so a reader never sees half a line that another follows.
    * A line that a crash tore is cut off when the file is opened; it is delivered again.
    * The file turns over when it has `rotate_bytes`, and at every whole multiple of `rotate_s` since 1970 in UTC (a
      day: at midnight), which needs no memory of when it was begun. `verdicts.jsonl` becomes
      `verdicts.000007.20260131T235959Z.jsonl`; the number only rises, whatever the clock does. The newest `keep` stay.
    * A file that somebody moves or deletes is begun anew at the next delivery.
    """

    def __init__(
        self,
        path: Path,
        *,
        rotate_bytes: int = 64 << 20,
        rotate_s: float = 24 * 3600.0,
        keep: int = 30,
        clock: Callable[[], float] = time,
    ) -> None:
        self._path = path
        self._rotate_bytes = rotate_bytes
        self._rotate_s = rotate_s
        self._keep = keep
        self._clock = clock
        self._rotated = re.compile(rf"{re.escape(path.stem)}\.(\d{{6,}})\.\d{{8}}T\d{{6}}Z{re.escape(path.suffix)}")
        self._file: int | None = None

    def deliver(self, payloads: Sequence[bytes]) -> Sequence[Refusal]:
        if not payloads:
            return ()
        try:
            file = self._current_file()
            good = os.fstat(file).st_size
            try:
                _write(file, b"".join(payloads))
                os.fdatasync(file)
            except OSError:
                os.ftruncate(file, good)
                raise
        except OSError as error:
            # After a failed sync the kernel may forget what it could not write: only a new look at the file is trusted.
            self.close()
            raise UnavailableError(
                f"{self._path}: cannot be written: {error.strerror or error}; what is to be written waits"
            ) from error
        return ()

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _current_file(self) -> int:
        if self._file is not None and not self._is_at_path(self._file):
            log.warning("output_moved", path=str(self._path), action="began a new file")
            self.close()
        file = self._file if self._file is not None else self._open()
        if self._is_full(file):
            self._rotate()
            file = self._open()
        return file

    def _open(self) -> int:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        self._file = file
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise OSError(f"found something that is not a file, wanted one that can be cut and synced: {self._path}")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError("another output or another gateway is writing it; give each its own path") from None
        size = os.fstat(file).st_size
        whole = _end_of_last_line(file, size)
        if whole < size:
            log.warning("torn_line_cut", path=str(self._path), bytes=size - whole)
            os.ftruncate(file, whole)
        self._sync_directory()
        return file

    def _is_at_path(self, file: int) -> bool:
        try:
            return os.path.samestat(os.fstat(file), self._path.stat())
        except FileNotFoundError:
            return False

    def _is_full(self, file: int) -> bool:
        found = os.fstat(file)
        if found.st_size == 0:
            return False
        # A clock that steps back turns nothing over.
        return found.st_size >= self._rotate_bytes or found.st_mtime // self._rotate_s < self._clock() // self._rotate_s

    def _rotate(self) -> None:
        rotated = self._rotated_files()
        number = rotated[-1][0] + 1 if rotated else 1
        stamp = datetime.fromtimestamp(self._clock(), UTC).strftime("%Y%m%dT%H%M%SZ")
        aside = self._path.with_name(f"{self._path.stem}.{number:06}.{stamp}{self._path.suffix}")
        self._path.rename(aside)
        self.close()
        if self._keep:
            for _, old in [*rotated, (number, aside)][: -self._keep]:
                old.unlink(missing_ok=True)
        self._sync_directory()
        log.info("output_rotated", path=str(self._path), to=aside.name)

    def _rotated_files(self) -> list[tuple[int, Path]]:
        found = ((self._rotated.fullmatch(path.name), path) for path in self._path.parent.iterdir())
        return sorted((int(match[1]), path) for match, path in found if match)

    def _sync_directory(self) -> None:
        directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _write(file: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(file, rest) :]


def _end_of_last_line(file: int, size: int) -> int:
    """Return how much of the file is whole lines."""
    end = size
    while end > 0:
        start = max(0, end - _TAIL_BYTES)
        found = os.pread(file, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
