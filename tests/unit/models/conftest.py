"""Tiny models, written once."""

from pathlib import Path

import pytest

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
