"""Models for gateways that are to be hurt: one that answers at once, and one that takes its time."""

from pathlib import Path

import msgspec
import pytest

from bench.random_models import Shape, write_decoder
from tests.fakes.tiny_models import RELEASE, TASK, tiny_decoder, vocabulary

QUICK = msgspec.structs.replace(RELEASE, task=msgspec.structs.replace(TASK, fields=(), fields_for=()))
SLUGGISH = Shape(layers=16, width=768, heads=12, key_heads=12, hidden=2048)  # some events a second


@pytest.fixture(scope="session")
def quick_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_decoder(tmp_path_factory.mktemp("models") / "quick.gguf", QUICK)


@pytest.fixture(scope="session")
def slow_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "slow.gguf"
    write_decoder(path, SLUGGISH, vocabulary(), QUICK)
    return path
