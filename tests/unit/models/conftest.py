"""Tiny models, written once, and a server that stands in for an engine's."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.engine_server import EngineServer
from tests.fakes.tiny_models import tiny_decoder, tiny_encoder


@pytest.fixture(scope="session")
def decoder_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_decoder(tmp_path_factory.mktemp("decoder") / "tiny.gguf")


@pytest.fixture(scope="session")
def instruct_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_decoder(tmp_path_factory.mktemp("instruct") / "instruct.gguf", release=None)


@pytest.fixture(scope="session")
def encoder_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("encoder") / "tiny-bert.gguf")


@pytest.fixture(scope="session")
def engine_server() -> Iterator[EngineServer]:
    with EngineServer() as server:
        yield server
