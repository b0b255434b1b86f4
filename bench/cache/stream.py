"""The stream that is measured: real lines as several hosts send them, again and again with fresh values."""

from itertools import chain, zip_longest
from pathlib import Path
from random import Random

from msgspec import Struct

from bench.cache.fresh import fresh, line_of
from edge.senders import as_syslog
from models.masking import Masking

_ROOT = Path(__file__).parents[2]
_LOGHUB = _ROOT.parent / "shared" / "data" / "loghub"
_SOURCES = ("OpenSSH", "Linux", "Apache", "Mac")
_SAMPLE = _ROOT / "edge" / "sample.log"


class Sizes(Struct, frozen=True, kw_only=True):
    """How much of everything is measured, and on which release."""

    release: str = "soc-triage"  # a shipped one's name, or a path
    lines: int = 2_000  # of each source, at most
    replays: int = 100  # of those lines, the first as they are
    judged: int = 10  # replays, evenly spread, in which the model is asked about every cached answer
    modelled: int = 500  # lines of each source, at most, that the flow answers without the cache
    attacks: int = 300
    look_alikes: int = 1_000  # of each attack
    trials: int = 500  # templates whose meaning changes
    entries: int = 100_000


class Stream:
    """The lines of every source that is there, in turns; of the shipped sample where there is none."""

    def __init__(self, lines: int) -> None:
        self._masking = Masking()
        self.sources = {name: _lines(path, lines) for name, path in _paths().items()}
        turns = zip_longest(*self.sources.values())
        self._lines = [line_of(line, self._masking) for line in chain.from_iterable(turns) if line is not None]

    def __len__(self) -> int:
        return len(self._lines)

    def replay(self, number: int) -> list[str]:
        """Return every line once: in replay 0 as it came, in every other with values and a time of its own."""
        if number == 0:
            return [line.text for line in self._lines]
        chance = Random(number)
        return [fresh(line, self._masking, chance) for line in self._lines]


def _paths() -> dict[str, Path]:
    logs = {name: _LOGHUB / f"{name}_2k.log" for name in _SOURCES}
    return {name: path for name, path in logs.items() if path.is_file()} or {"sample": _SAMPLE}


def _lines(path: Path, most: int) -> list[str]:
    """Return lines as a sender frames them."""
    lines = [as_syslog(line).decode("utf-8", "replace") for line in path.read_bytes().splitlines() if line.strip()]
    return lines[:most]
