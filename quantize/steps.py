"""Steps that are done once: each has a folder named after what went into it, and is skipped where that is there.

A step writes into a folder that gets its name when all of it is there, so that what is interrupted is never taken for
what is finished; a step that can go on from where it stopped finds what it left in that same folder.
"""

import errno
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile

import msgspec
from msgspec import Struct

from models.contracts.errors import HeadwaterError, InputError, UnavailableError
from models.release_file import digest_of

_NOTE = "step.json"
_SO_FAR = "seconds"  # in an unfinished folder: how long the sittings before this one took
_LOCK = ".lock"
_UNFINISHED = ".unfinished"
_DIGITS = 12
_PROBE_BYTES = 1 << 20  # what a library could not write was larger than what is left
_OF_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)  # no reading ends so

Work = Callable[[Path], None]


class _Note(Struct, frozen=True):
    """What is read of the note that a finished step leaves."""

    seconds: float


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep `folder`, a release's, to one run: two would write into the same unfinished folders.

    The system lets go of the lock when the process ends, however it ends.

    Raises:
        UnavailableError: another run has it.
        InputError: it cannot be made or locked.
    """
    with _told("run", f"lock {folder / _LOCK}"):
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / _LOCK).open("ab")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UnavailableError(
                f"{folder}: another run of this recipe is at work in it; wait for its end, or give another --out"
            ) from error
        except OSError as error:
            raise _refused("run", f"lock {folder / _LOCK}", error) from error
        yield


class Code(Struct, frozen=True):
    """A module by its name: its source counts, and it is not imported for that."""

    module: str


class Steps:
    """Runs the steps of one release."""

    def __init__(self, folder: Path, tell: Callable[[str], None]) -> None:
        self._folder, self._tell = folder, tell
        self.seconds: dict[str, float] = {}  # by step; of one that was skipped, what it took when it ran

    def run(self, name: str, inputs: Sequence[object], work: Work) -> Path:
        """Return the folder that `work` filled, now or before with the same inputs.

        An input is a file or a folder, whose bytes count; `Code`, whose source counts; or what msgspec encodes.

        Raises:
            HeadwaterError: the work failed, and said why.
            ConfigError, InputError: what goes into it cannot be read, or there is no room for what it writes.
        """
        digest = digest_of_inputs(name, inputs)
        done = self._folder / f"{name}-{digest[:_DIGITS]}"
        with _told(name, f"read {done / _NOTE}"):
            took = _seconds_noted(done)
        if took is not None:
            self.seconds[name] = took
            self._tell(f"{name}: nothing that goes into it has changed; took {done} ({_spoken(took)} then)")
            return done
        unfinished = done.with_name(done.name + _UNFINISHED)
        with _told(name, f"make {unfinished}"):
            goes_on = unfinished.is_dir()
            unfinished.mkdir(parents=True, exist_ok=True)
            before = _seconds_so_far(unfinished)
            _note_so_far(unfinished, before)
        self._tell(f"{name}: goes on where it stopped" if goes_on else f"{name}: …")
        begun = time.monotonic()
        try:
            work(unfinished)
        except HeadwaterError:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        except OSError as error:
            _leave(unfinished, before + time.monotonic() - begun)
            raise _refused_at_work(name, error, inputs, unfinished) from error
        except BaseException:  # interrupted
            _leave(unfinished, before + time.monotonic() - begun)
            raise
        took = before + time.monotonic() - begun
        note = {"step": name, "inputs": digest, "seconds": round(took, 1)}
        try:
            _finish(name, unfinished, done, msgspec.json.encode(note))
        except InputError:
            _leave(unfinished, took)
            raise
        self.seconds[name] = took
        self._tell(f"{name}: done in {_spoken(took)}")
        return done


@contextmanager
def told_by_the_system(folder: Path) -> Iterator[None]:
    """Raise the system's own error where a library failed to write: of a full disk each speaks in words of its own.

    Raises:
        OSError: `folder` takes no more.
    """
    try:
        yield
    except (InputError, OSError):
        with TemporaryFile(dir=folder) as probe:
            os.posix_fallocate(probe.fileno(), 0, _PROBE_BYTES)
        raise


def digest_of_inputs(name: str, inputs: Sequence[object]) -> str:
    """Return the SHA-256 over a step's name and everything that goes into it.

    Raises:
        ConfigError, InputError: a file of it cannot be read.
    """
    digest = hashlib.sha256(name.encode())
    for one in inputs:
        try:
            digest.update(b"\0" + _bytes_of(one))
        except OSError as error:
            where = error.filename or (one.module if isinstance(one, Code) else one)
            raise _refused(name, f"read {where}", error) from error
    return digest.hexdigest()


def _bytes_of(one: object) -> bytes:
    if isinstance(one, Code):
        found = find_spec(one.module)
        if found is None or found.origin is None:
            raise ValueError(f"no module {one.module}")
        return Path(found.origin).read_bytes()
    if isinstance(one, Path):
        files = sorted(path for path in one.rglob("*") if path.is_file()) if one.is_dir() else [one]
        return "".join(f"{path.relative_to(one)}{digest_of(path)}" for path in files if path.name != _NOTE).encode()
    return msgspec.json.encode(one, order="deterministic")


def _seconds_noted(done: Path) -> float | None:
    """Return how long a finished step took; nothing of one that is not.

    A note that cannot be decoded was left by a loss of power, and what lies beside it is no better.
    """
    note = done / _NOTE
    if not note.is_file():
        return None
    try:
        return msgspec.json.decode(note.read_bytes(), type=_Note).seconds
    except (msgspec.DecodeError, UnicodeDecodeError):
        shutil.rmtree(done)
        return None


def _seconds_so_far(unfinished: Path) -> float:
    """Return how long the sittings before this one took.

    Where one was killed, it counts until the last thing that it wrote: what came after is done again.
    """
    note = unfinished / _SO_FAR
    try:
        noted, begun = float(note.read_text(encoding="ascii")), note.stat().st_mtime
        return noted + max(path.stat().st_mtime - begun for path in (note, *unfinished.rglob("*")))
    except (OSError, ValueError):
        return 0.0


def _note_so_far(unfinished: Path, seconds: float) -> None:
    (unfinished / _SO_FAR).write_text(f"{seconds:.1f}", encoding="ascii")


def _leave(unfinished: Path, seconds: float) -> None:
    """Leave what the work left, with the time that it took; if it left nothing, no folder stays."""
    with suppress(OSError):  # the time is for a report: no reason to fail
        if any(path.name != _SO_FAR for path in unfinished.iterdir()):
            _note_so_far(unfinished, seconds)
        else:
            shutil.rmtree(unfinished, ignore_errors=True)


def _finish(name: str, unfinished: Path, done: Path, note: bytes) -> None:
    """Note what was done and give the folder its name; where that fails, no note is left.

    All of it is on the disk before it has the name: after a loss of power a name may be there before the bytes are.
    """
    path = unfinished / _NOTE
    try:
        with _told(name, f"write to {path}"):
            path.write_bytes(note)
            (unfinished / _SO_FAR).unlink(missing_ok=True)
            for one in (*unfinished.rglob("*"), unfinished):
                _settle(one)
        with _told(name, f"rename {unfinished} to {done}"):
            unfinished.replace(done)
            _settle(done.parent)
    except InputError:
        with suppress(OSError):
            path.unlink()
        raise


def _settle(path: Path) -> None:
    """Wait until the bytes of a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _told(name: str, wanted: str) -> Iterator[None]:
    """Say in a sentence what the system refuses."""
    try:
        yield
    except OSError as error:
        raise _refused(name, wanted, error) from error


def _refused(name: str, wanted: str, error: OSError) -> InputError:
    room = "; the disk is full: make room, and the same command goes on" if error.errno == errno.ENOSPC else ""
    return InputError(f"{name}: cannot {wanted}: {error.strerror or error}{room}")


def _refused_at_work(name: str, error: OSError, inputs: Sequence[object], unfinished: Path) -> InputError:
    """Return what went wrong and where, as far as the error tells: of reads and writes themselves it names no file."""
    if error.errno is None:  # a library's, in its own words
        return InputError(f"{name}: {' '.join(str(error).split()) or type(error).__name__}")
    where = error.filename if isinstance(error.filename, str) else None
    if error.errno in _OF_WRITING:
        wanted = f"write to {where or unfinished}"
    elif where is None:
        wanted = f"read what goes into it or write to {unfinished}"
    elif any(isinstance(one, Path) and Path(where).is_relative_to(one) for one in inputs):
        wanted = f"read {where}"
    else:
        wanted = f"read or write {where}"
    return _refused(name, wanted, error)


def _spoken(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
