"""Makes a file once, however many runs want it at the same time: aside, under a lock, then renamed into its place."""

import fcntl
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def once(path: Path, make: Callable[[Path], None]) -> Path:
    """Return `path`; where it is not there, `make` is given the name of a file beside it to write."""
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with _alone(path):
        if not path.exists():  # another run may have made it while we waited
            unfinished = path.with_name(f"{path.name}.unfinished")
            unfinished.unlink(missing_ok=True)  # of a run that was killed
            make(unfinished)
            unfinished.replace(path)
    return path


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the lock of `path`; the kernel gives it back however a run ends."""
    lock = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"another run makes {path.name}; waiting for it …", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
