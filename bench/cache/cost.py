"""What the cache costs: microseconds of a key, and memory of a full cache."""

import gc
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import count, islice
from pathlib import Path
from tempfile import NamedTemporaryFile
from time import process_time

import msgspec
import psutil
from msgspec import Struct
from msgspec.structs import replace

from bench.cache.flow import stream_of
from bench.cache.steps import WINDOW, answers, events_of
from bench.cache.stream import Sizes
from bench.pipeline import ROOT
from bench.row import Row
from dataflows.cache.verdict_cache import VerdictCache
from models.classifier import Classifier
from models.contracts.opinion import Opinion
from models.contracts.policy import Policy
from models.contracts.release import Release
from models.masking import Masking
from models.opening import open_classifier
from models.table import TableClassifier
from quantize.events import body_of

_KEY_US = 8.0
_CACHE_MIB = 60.0
_ROUNDS = 7
_LETTERS = "bcdfghjklmnpqrstvwxz"
_MARK = 4  # letters in front of a template, of which there are 160,000


def key_rows(sizes: Sizes) -> list[Row]:
    """Measure every line's key on one core: the fastest of a few rounds."""
    bodies = [body_of(text) for text in stream_of(sizes).replay(0)]
    us = key_us(bodies)
    return [Row(name="key_us", value=us, unit=f"us, mean of {len(bodies)} lines", passed=us <= _KEY_US)]


class Known(Struct, frozen=True):
    """What a model said of real lines."""

    release: Release
    opinions: dict[str, Opinion]  # by body


def memory_rows(sizes: Sizes) -> list[Row]:
    """Fill a cache in a process of its own, which never held anything else: memory that was freed would hide growth."""
    bodies = list(dict.fromkeys(body_of(text) for text in stream_of(sizes).replay(0)))
    with closing(open_classifier(sizes.release)) as opened, NamedTemporaryFile(suffix=".json") as file:
        bodies = that_answer(bodies, opened)
        known = Known(replace(opened.release, roles=None), dict(zip(bodies, opened.classify(bodies), strict=True)))
        file.write(msgspec.json.encode(known))
        file.flush()
        command = [sys.executable, "-m", "bench.cache.cost", file.name, str(sizes.entries)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    mib = float(done.stdout)
    return [Row(name="cache_mb", value=mib, unit=f"MiB for {sizes.entries} entries", passed=mib <= _CACHE_MIB)]


def key_us(bodies: Sequence[str]) -> float:
    """Return the mean over the bodies."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    mask, fastest = Masking().mask, float("inf")
    try:
        for _ in range(_ROUNDS):
            begun = process_time()
            for body in bodies:
                mask(body)
            fastest = min(fastest, process_time() - begun)
    finally:
        os.sched_setaffinity(0, cores)
    return fastest / len(bodies) * 1e6


class Marked:
    """A `Classifier` that says of a marked text what another says of the text; each opinion is a record of its own."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier

    @property
    def release(self) -> Release:
        return self._classifier.release

    def classify(self, texts: Sequence[str]) -> list[Opinion]:
        """Return one opinion per text, in order."""
        said = self._classifier.classify([text[_MARK + 1 :] for text in texts])
        return [
            replace(
                opinion,
                # Copies of the numbers too: a model's are new for every text.
                probabilities=tuple(number + 0.0 for number in opinion.probabilities),
                label_mass=opinion.label_mass + 0.0,
                fields=dict(opinion.fields),
            )
            for opinion in said
        ]

    def close(self) -> None:
        self._classifier.close()


def that_answer(bodies: Sequence[str], classifier: Classifier) -> list[str]:
    """Return one body of each template that may answer, and still may behind a mark."""
    texts = [f"{'b' * _MARK} {body}" for body in bodies]
    one_of = {masked.key: text for text in texts if (masked := Masking().mask(text)) is not None}
    known, marked = VerdictCache(b"bench"), Marked(classifier)
    for _ in answers(events_of(list(one_of.values())), marked, _at_once(marked.release.policy), known):
        pass
    return [one_of[key][_MARK + 1 :] for key, entry in known.listing() if entry.answers and key in one_of]


def grown_mib(known: Known, entries: int) -> float:
    """Return by how much this process grows while a cache is filled with templates that answer.

    One event is enough for each to begin, and a second is answered: an entry has the same size whoever vouched for it.
    """
    marked = Marked(TableClassifier(known.release, known.opinions))
    policy = _at_once(known.release.policy)
    policy = replace(policy, cache=replace(policy.cache, max_entries=entries))
    cache = VerdictCache(b"bench")
    texts = islice(_marked(list(known.opinions)), entries)
    numbers = count(0, WINDOW)
    gc.collect()
    before = psutil.Process().memory_info().rss
    while window := list(islice(texts, WINDOW)):
        for _ in range(2):
            for _ in answers(events_of(window, next(numbers)), marked, policy, cache):
                pass
    gc.collect()
    grown = psutil.Process().memory_info().rss - before
    answering = sum(entry.answers for _, entry in cache.listing())
    if answering != entries:
        raise RuntimeError(f"bench: {answering} of {entries} entries answer; the figure is none")
    return grown / (1 << 20)


def _at_once(policy: Policy) -> Policy:
    """Let one event vouch for a template."""
    return replace(policy, cache=replace(policy.cache, ask_first=1, ask_first_grave=1))


def _marked(bodies: Sequence[str]) -> Iterator[str]:
    """Yield bodies behind a word without a digit, another for each: so each is a template of its own."""
    for number in count():
        left, letters = number // len(bodies), ""
        for _ in range(_MARK):
            left, letter = divmod(left, len(_LETTERS))
            letters += _LETTERS[letter]
        yield f"{letters} {bodies[number % len(bodies)]}"


if __name__ == "__main__":
    print(grown_mib(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Known), int(sys.argv[2])))
