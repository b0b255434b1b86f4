"""Opens a release: the one place that knows which runtime a GGUF wants."""

import os
from contextlib import ExitStack
from pathlib import Path

from models.classifier import Classifier
from models.contracts.errors import UntrustedError
from models.contracts.release import Release
from models.decoder import DecoderClassifier
from models.encoder import READINGS, EncoderClassifier
from models.llama import Model
from models.release_file import check_digest, read_release, release_path

_MAX_THREADS = 2


def open_classifier(
    release: str | Path,
    *,
    sha256: str = "",
    task: str = "",
    threads: int = 0,
    context_tokens: int = 1024,
    readings: int = READINGS,
) -> Classifier:
    """Open a shipped release by its name or any GGUF by its path; `task` is the task file of one without a release.

    With `threads` 0 it takes a core each, two at most. An encoder remembers what it said of so many readings; 0 where
    its speed is measured.

    Raises:
        ConfigError: there is no such file, or the configuration does not suit it.
        UntrustedError: the file is not what was promised, or cannot answer the task.
    """
    path = release_path(release)
    check_digest(path, sha256)
    model = Model(path)
    with ExitStack() as failed:
        failed.callback(model.close)
        own = read_release(model, task)
        classifier = classifier_of(model, own, threads=threads, context_tokens=context_tokens, readings=readings)
        failed.pop_all()
    return classifier


def classifier_of(
    model: Model, release: Release, *, threads: int = 0, context_tokens: int = 1024, readings: int = READINGS
) -> Classifier:
    """Return what answers the release's task with the model, which it closes when it is closed; see `open_classifier`.

    Raises:
        UntrustedError: the model cannot answer the task.
        ConfigError: the context is too small for it.
    """
    threads = threads or min(len(os.sched_getaffinity(0)), _MAX_THREADS)
    encodes, kind = model.pools_to_labels, release.prompt.kind
    if encodes != (kind == "encoder"):
        found = "an encoder with a head" if encodes else "no encoder with a head"
        raise UntrustedError(f"{model.path}: release {release.title} has a prompt of kind `{kind}`, and is {found}")
    if encodes:
        return EncoderClassifier(model, release, threads=threads, remembered=readings)
    return DecoderClassifier(model, release, threads=threads, context_tokens=context_tokens)
