"""A tiny decoder twice: a checkpoint for vLLM, and the F16 GGUF of the same weights for llama.cpp."""

from pathlib import Path
from typing import NamedTuple

from bench.central.twins import write_twins
from models.contracts.release import Release
from tests.fakes.tiny_models import DECODER, RELEASE, vocabulary


class Twins(NamedTuple):
    checkpoint: Path
    gguf: Path


def tiny_twins(folder: Path, release: Release = RELEASE, seed: int = 0) -> Twins:
    twins = Twins(folder / "tiny", folder / "tiny.gguf")
    write_twins(twins.checkpoint, twins.gguf, DECODER, vocabulary(), release, seed=seed)
    return twins
