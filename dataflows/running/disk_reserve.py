"""Room put aside on the state directory's disk: when others fill it, the flow goes on committing out of this.

Bytewax cannot wait for a disk: a commit that does not fit ends the process. On a disk that is nearly full the intake
takes nothing more, so what the flow still has to write is little, and the reserve is enough for it.
"""

import os
import time
from contextlib import suppress
from pathlib import Path

import structlog

from models.contracts.errors import UnavailableError

_RESERVE_BYTES = 8 << 20  # the recovery store's log, and some epochs
_LEAST_BYTES = 4 << 20  # with less a commit may fail
_AGAIN_S = 60.0  # a quota, say, refuses what the disk has room for: no use to try at every look
_AMPLE_BYTES = 32 << 20  # the reserve, what the spool leaves free, and as much again

log = structlog.get_logger()


class DiskReserve:
    """A file that is there to be given up."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._path = state_dir / "reserve"
        self._missing = False
        self._not_before = 0.0

    def require_room(self) -> None:
        """Give the reserve up where a start needs it.

        Raises:
            UnavailableError: there is too little room all the same.
        """
        self.look()
        free = _free_bytes(self._state_dir)
        if free is not None and free < _LEAST_BYTES:
            raise UnavailableError(
                f"`state_dir` {self._state_dir}: found {free} bytes free on its disk, wanted at least "
                f"{_LEAST_BYTES}; make room there; what was accepted waits in the spool"
            )

    def look(self) -> None:
        """Give the reserve up where the disk is nearly full; put it aside where there is ample room."""
        free = _free_bytes(self._state_dir)
        if free is None:
            return
        if free < _LEAST_BYTES and self._path.exists():
            self.give_up()
            log.warning("disk_full", state_dir=str(self._state_dir), action="gave up the reserve; make room there")
        elif free >= _AMPLE_BYTES and time.monotonic() >= self._not_before and not self._path.exists():
            self._put_aside()

    def give_up(self) -> None:
        """Make its room free; a disk that refuses even this is named by whoever needs the room."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _put_aside(self) -> None:
        fresh = self._path.with_suffix(".new")
        try:
            with fresh.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, _RESERVE_BYTES)
            fresh.rename(self._path)
        except OSError as error:
            with suppress(OSError):
                fresh.unlink(missing_ok=True)
            if not self._missing:
                log.warning("disk_reserve_missing", state_dir=str(self._state_dir), reason=str(error))
            self._missing = True
            self._not_before = time.monotonic() + _AGAIN_S
        else:
            self._missing = False


def _free_bytes(directory: Path) -> int | None:
    """Return the room that is left, unless the disk does not even say that."""
    try:
        disk = os.statvfs(directory)
    except OSError:
        return None
    return disk.f_bavail * disk.f_frsize
