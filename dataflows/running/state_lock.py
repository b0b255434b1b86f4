"""One process per state directory: locks that the kernel drops when their holders are gone."""

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path

from models.contracts.errors import ConfigError, UnavailableError

_PATIENCE_S = 10.0  # an orphaned intake commits and leaves within a second; a loaded machine gets more


class StateLock:
    """Two locks on one file: the process's own, and one that its children inherit.

    A record lock (`lockf`) belongs to one process, so it says whether that lives. An `flock` belongs to the open file,
    so it lasts until a gateway's intake is gone too: a gateway that is started right after a kill waits until the old
    intake has committed what it accepted and has let go of its ports, and two intakes never write one spool.
    """

    def __init__(self, state_dir: Path) -> None:
        """Open the lock file, made on first use.

        Raises:
            ConfigError: it cannot be opened.
        """
        self._path = state_dir / "lock"
        try:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(
                f"{self._path}: cannot be opened: {error.strerror}; look at its owner, or remove it where nothing "
                "runs, or change `state_dir`"
            ) from error

    def acquire(self) -> None:
        """Take both locks, waiting only for what an earlier process left behind.

        Raises:
            ConfigError: another process lives.
            UnavailableError: it is gone and its intake does not end; another start may find it gone too.
        """
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise ConfigError(
                f"{self._path}: held by process {self._holder()}; one process per state directory: "
                "stop that one, or give this one its own `state_dir`"
            ) from error
        deadline = time.monotonic() + _PATIENCE_S
        while not self._inherited_lock():
            if time.monotonic() > deadline:
                raise UnavailableError(
                    f"{self._path}: still held by the intake of process {self._holder()}, which is gone; "
                    f"waited {_PATIENCE_S:.0f} s: stop the process `edge.intake` that is left"
                )
            time.sleep(0.02)
        with suppress(OSError):  # on a full disk nobody learns our number, and the lock is held all the same
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, str(os.getpid()).encode(), 0)

    def fileno(self) -> int:
        """Return the descriptor that the intake inherits."""
        return self._fd

    def release(self) -> None:
        """Close our descriptor; a child that inherited it holds the `flock` until it ends."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _inherited_lock(self) -> bool:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _holder(self) -> str:
        return os.pread(self._fd, 32, 0).decode("ascii", "replace") or "unknown"


def is_held(state_dir: Path) -> bool:
    """Return whether a gateway or its intake lives on a directory; changes nothing there.

    Raises:
        ConfigError: there is a lock file that a gateway of this user could not open.
    """
    path = state_dir / "lock"
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be opened: {error.strerror}; look at its owner: `edge check` is for the gateway's user"
        ) from error
    try:
        fcntl.lockf(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return True
    finally:
        os.close(fd)
    return False
