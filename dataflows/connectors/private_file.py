"""Makes a database's file where there is none: it holds events, which are nobody else's to read.

A file that is there is not touched. Whoever closes a file lets go of all locks that his process has on it (fcntl(2)).
So to open and close one that SQLite has open elsewhere in this process would let another process believe that it is the
last to leave, and take away the log that is being written.
"""

import os
from contextlib import suppress
from pathlib import Path
from threading import Lock

_making = Lock()  # one of ours that found the file made must not lock it before whoever made it has closed it


def make_private(path: Path) -> None:
    """Make an empty file for our own eyes.

    Raises:
        OSError: it cannot be made.
    """
    with _making, suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
