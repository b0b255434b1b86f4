"""Steps that are done once: each has a folder named after what went into it, and is skipped where that is there.

A step writes into a folder that gets its name when all of it is there, so that what is interrupted is never taken for
what is finished; a step that can go on from where it stopped finds what it left in that same folder.
"""

import hashlib
import shutil
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import msgspec
from msgspec import Struct

from models.contracts.errors import HeadwaterError, InputError
from models.release_file import digest_of

_NOTE = "step.json"
_UNFINISHED = ".unfinished"
_DIGITS = 12

Work = Callable[[Path], None]


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
            InputError: there is no room for what it writes.
        """
        digest = digest_of_inputs(name, inputs)
        done = self._folder / f"{name}-{digest[:_DIGITS]}"
        if (note := done / _NOTE).is_file():
            took = float(msgspec.json.decode(note.read_bytes())["seconds"])
            self.seconds[name] = took
            self._tell(f"{name}: nothing that goes into it has changed; took {done} ({_spoken(took)} then)")
            return done
        unfinished = done.with_name(done.name + _UNFINISHED)
        goes_on = unfinished.is_dir()
        unfinished.mkdir(parents=True, exist_ok=True)
        self._tell(f"{name}: goes on where it stopped" if goes_on else f"{name}: …")
        begun = time.monotonic()
        try:
            work(unfinished)
        except HeadwaterError:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        except OSError as error:
            raise InputError(f"{name}: cannot write to {unfinished}: {error.strerror or error}") from error
        took = time.monotonic() - begun
        told = {"step": name, "inputs": digest, "seconds": round(took, 1)}
        (unfinished / _NOTE).write_bytes(msgspec.json.encode(told))
        unfinished.replace(done)
        self.seconds[name] = took
        self._tell(f"{name}: done in {_spoken(took)}")
        return done


def digest_of_inputs(name: str, inputs: Sequence[object]) -> str:
    """Return the SHA-256 over a step's name and everything that goes into it."""
    digest = hashlib.sha256(name.encode())
    for one in inputs:
        digest.update(b"\0" + _bytes_of(one))
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


def _spoken(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
