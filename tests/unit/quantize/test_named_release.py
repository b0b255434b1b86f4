"""A release by its name or path, and what a GGUF without one is taken for."""

from pathlib import Path

import pytest

from models.contracts.errors import ConfigError
from quantize.named_release import named_release
from tests.fakes.tiny_models import RELEASE, TASK, tiny_decoder, tiny_encoder


@pytest.fixture
def task_file(tmp_path: Path) -> Path:
    labels = "".join(f'[[labels]]\nname = "{one.name}"\ndescription = "{one.description}"\n' for one in TASK.labels)
    path = tmp_path / "task.toml"
    path.write_text(f'name = "x"\ninstruction = "Triage."\ndefault_label = "{TASK.default_label}"\n{labels}')
    return path


def test_a_file_that_carries_a_release_says_it(tmp_path: Path) -> None:
    path = tiny_decoder(tmp_path / "mine.gguf")

    assert named_release(str(path)) == (path, RELEASE)


def test_a_decoder_without_a_release_is_asked_behind_its_chat_template(tmp_path: Path, task_file: Path) -> None:
    path = tiny_decoder(tmp_path / "instruct.gguf", release=None)

    assert named_release(str(path), str(task_file))[1].prompt.kind == "chat"


def test_an_encoder_without_a_release_is_asked_as_an_encoder(tmp_path: Path, task_file: Path) -> None:
    path = tiny_encoder(tmp_path / "encoder.gguf", carries_release=False)

    assert named_release(str(path), str(task_file))[1].prompt.kind == "encoder"


def test_without_a_release_a_task_file_is_wanted(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="set `task` to a task file"):
        named_release(str(tiny_decoder(tmp_path / "instruct.gguf", release=None)))
