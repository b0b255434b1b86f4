"""Reads JSON lines as another process writes them: whole lines only, each once, through rotation."""

import os
from pathlib import Path

from models.contracts.verdict import Verdict
from models.contracts.wire import decode_verdict


class Harvest:
    """What has come out so far. As for everyone who receives verdicts, a repeat of an id is not new.

    A verdict of a higher revision takes the place of the one before.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: dict[int, int] = {}  # bytes by inode: a rotated file keeps its own
        self.verdicts: dict[str, Verdict] = {}
        self.repeats = 0
        self.revised = 0

    def gather(self) -> list[Verdict]:
        """Return the verdicts that are new since the last call, in order."""
        new = []
        for path in (*sorted(self._path.parent.glob(f"{self._path.stem}.[0-9]*{self._path.suffix}")), self._path):
            for line in self._whole_lines(path):
                verdict = decode_verdict(line)
                known = self.verdicts.get(verdict.id)
                if known is not None and verdict.revision > known.revision:
                    self.revised += 1
                    self.verdicts[verdict.id] = verdict
                    continue
                if known is not None:
                    self.repeats += 1
                    continue
                self.verdicts[verdict.id] = verdict
                new.append(verdict)
        return new

    def _whole_lines(self, path: Path) -> list[bytes]:
        try:
            with path.open("rb") as file:
                inode = os.fstat(file.fileno()).st_ino
                file.seek(self._read.get(inode, 0))
                content = file.read()
        except FileNotFoundError:
            return []
        whole = content.rfind(b"\n") + 1
        self._read[inode] = self._read.get(inode, 0) + whole
        return content[:whole].split(b"\n")[:-1]
