"""A vLLM server of a random model, and events to ask it about."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from msgspec import Struct

from bench.central.twins import write_twins
from bench.label import LABELS, lines
from bench.random_models import Shape, vocabulary_of
from bench.vendored import vocabulary_file
from central.local_vllm import LocalVllm
from models.engines.openai_classifier import OpenAiClassifier

CONTEXT_TOKENS = 1024
BUDGET_S = 120.0  # of an event, so that none is late on a machine that does something else
_VOCABULARY = 4096
_LINES = 2000
_SEED = 2  # with it the labels' probabilities are about as different as a trained model's; with others all are the same
_NOISE = (
    "<|endoftext|>",
    "\x00",
    "\u202e",
    "日本語",
    "é",
    "{{",
    "}}",
    "%n",
    "\n",
    "\t",
    "  ",
    "-",
    ";",
    "'",
    '"',
    "\\",
    "😀",
)


class Served(Struct, frozen=True):
    """A model that is served, and its other form."""

    url: str
    gguf: Path


@contextmanager
def served(shape: Shape, *, dtype: str = "float32") -> Iterator[Served]:
    """Start the server, and have it answer once: an engine's first answer takes several times as long as any other."""
    with TemporaryDirectory(prefix="headwater-bench-") as folder:
        checkpoint, gguf = Path(folder) / "random", Path(folder) / "random.gguf"
        vocabulary = vocabulary_of(vocabulary_file("gpt-2"), size=_VOCABULARY)
        write_twins(checkpoint, gguf, shape, vocabulary, LABELS, seed=_SEED)
        server = LocalVllm(Path(folder), checkpoint, context_tokens=CONTEXT_TOKENS, dtype=dtype)
        try:
            server.start()
            asking(server.url).close()
            yield Served(server.url, gguf)
        finally:
            server.stop()


def asking(url: str, concurrency: int = 64) -> OpenAiClassifier:
    """Open a classifier that remembers nothing."""
    return OpenAiClassifier(url, LABELS, budget_s=BUDGET_S, concurrency=concurrency, remembered=0)


def events(count: int, *, start: int = 0) -> list[str]:
    """Return real lines, each made another by its number; one in ten is noise."""
    real = lines(_LINES)
    return [
        _noise(number) if number % 10 == 0 else f"{real[number % len(real)]} {number}"
        for number in range(start, start + count)
    ]


def windows(texts: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (texts[at : at + size] for at in range(0, len(texts), size))


def _noise(number: int) -> str:
    chance = Random(number)
    return "".join(
        chance.choice(_NOISE) if chance.random() < 0.1 else chr(chance.randrange(32, 127))
        for _ in range(chance.randrange(60))
    )
