"""Labels that were given by hand, in a file of JSON lines: each is on the disk before the next is asked for."""

import os
import shlex
import shutil
from collections.abc import Sequence
from errno import ENOSPC
from io import FileIO
from pathlib import Path
from tempfile import TemporaryFile

import msgspec
from msgspec import Struct

from models.contracts.errors import ConfigError, InputError, UnavailableError
from quantize.events import content_of

_MOST_FAULTS = 5
_UNFINISHED = ".unfinished"


class Given(Struct, frozen=True):
    """One event as a person labelled it, and what the model had said."""

    text: str
    label: str
    model_label: str = ""
    confidence: float = 0.0  # of the model, in its own label
    labelled_at: str = ""  # ISO 8601, UTC


class LabelFile:
    """Appends labels, and takes the last one back; what was there before stays as it is."""

    def __init__(self, path: Path, labels: Sequence[str]) -> None:
        """Read what is there.

        Raises:
            ConfigError: it cannot be read, or not be written.
            InputError: lines that are none, or labels that are none of `labels`; it is not touched.
        """
        self.path = path.resolve()  # a link stays one: what it names is replaced
        self.given = _read(self.path, labels)
        try:
            # No question of rights alone: some file systems take no files.
            if self.path.exists():
                self.path.open("ab").close()
            else:
                TemporaryFile(dir=self.path.parent).close()
        except OSError as error:
            raise ConfigError(f"{path}: cannot be written: {error.strerror or error}; give another --out") from error

    def append(self, one: Given) -> None:
        """Write a label; when this returns it is on the disk.

        Raises:
            UnavailableError: the disk does not take it, and nothing of it stays.
        """
        try:
            is_new = not self.path.exists()
            with self.path.open("ab+", buffering=0) as file:
                _append(file, _line(one))
            if is_new:
                _sync(self.path.parent)
        except OSError as error:
            raise UnavailableError(
                f"{self.path}: {error.strerror or error}; the last label was not kept, the others were: "
                "make room and run the same command again"
            ) from error
        self.given.append(one)

    def take_back(self) -> bool:
        """Remove the last label; return False, and leave the file alone, if its last line is another.

        Raises:
            UnavailableError: the disk does not take the shorter file; the longer one stays.
        """
        line = _line(self.given[-1])
        # Written beside it and renamed: whatever happens, one of the two is there, whole.
        shorter = self.path.with_name(self.path.name + _UNFINISHED)
        try:
            content = self.path.read_bytes()
            if not content.endswith(line):
                return False
            with shorter.open("wb") as file:
                file.write(content.removesuffix(line))
                file.flush()
                os.fsync(file.fileno())
            shutil.copymode(self.path, shorter)
            shorter.replace(self.path)
            _sync(self.path.parent)
        except OSError as error:
            shorter.unlink(missing_ok=True)
            raise UnavailableError(
                f"{self.path}: {error.strerror or error}; the last label was not taken back"
            ) from error
        self.given.pop()
        return True


def _read(path: Path, labels: Sequence[str]) -> list[Given]:
    if not path.exists():
        if not path.parent.is_dir():
            raise ConfigError(f"{path.parent}: no such folder; make it, or give another --out")
        return []
    content = content_of(path)
    lines = content.splitlines()
    given, faults = [], list[str]()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            one = msgspec.json.decode(line, type=Given)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            cut_off = number == len(lines) and not content.endswith(b"\n")
            mend = f"; it has no end, so it was cut off: delete it (`sed -i '$d' {shlex.quote(str(path))}`)"
            faults.append(f"line {number}: {error}{mend if cut_off else ''}")
            continue
        if one.label not in labels:
            faults.append(f"line {number}: label `{one.label}` is none of the release's")
        given.append(one)
    if faults:
        more = f"; and {len(faults) - _MOST_FAULTS} more" if len(faults) > _MOST_FAULTS else ""
        raise InputError(
            f"{path}: {'; '.join(faults[:_MOST_FAULTS])}{more}; "
            "left it as it is: mend these lines, or give another --out"
        )
    return given


def _line(one: Given) -> bytes:
    return msgspec.json.encode(one) + b"\n"


def _append(file: FileIO, line: bytes) -> None:
    """Write a whole line, and sync it, or nothing."""
    end = file.seek(0, os.SEEK_END)
    if end:
        file.seek(end - 1)
        if file.read(1) != b"\n":  # an editor left the last line without its end
            line = b"\n" + line
    try:
        written = file.write(line)
        os.fsync(file.fileno())
    except OSError:
        file.truncate(end)
        raise
    if written != len(line):
        file.truncate(end)
        raise OSError(ENOSPC, os.strerror(ENOSPC))


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
