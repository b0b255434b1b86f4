"""A release by its name or its path, to its file and what it says of itself."""

from pathlib import Path

from models.contracts.release import Release
from models.llama import Model
from models.release_file import read_release, release_path


def named_release(name: str, task_file: str = "") -> tuple[Path, Release]:
    """Return the file and the release in it; `task_file` is for a GGUF that carries none.

    Raises:
        ConfigError: there is no such file; or it carries no release and no task file was given, or a wrong one.
        UntrustedError: llama.cpp does not take it, or what it carries is no release.
    """
    path = release_path(name)
    # What an instruct model is, only its weights tell; a release says it itself.
    with Model(path, vocabulary_only=not task_file) as model:
        return path, read_release(model, task_file)
