"""Opens a release: the one place that knows which runtime a GGUF wants."""

import os
from contextlib import ExitStack
from pathlib import Path

from msgspec.structs import replace

from models.classifier import Classifier
from models.contracts.errors import UntrustedError
from models.contracts.release import Calibration, Release
from models.decoder import DecoderClassifier
from models.encoder import READINGS, EncoderClassifier
from models.llama import Model
from models.release_file import check_digest, read_release, release_path, second_path

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
    if not encodes:
        return DecoderClassifier(model, release, threads=threads, context_tokens=context_tokens)
    with ExitStack() as failed:
        second = _second_of(release, model.path.parent, threads=threads, readings=readings)
        if second is not None:
            failed.callback(second.close)
        classifier = EncoderClassifier(model, release, threads=threads, remembered=readings, second=second)
        failed.pop_all()
    return classifier


def as_second(release: Release) -> Release:
    """Return a release as it is asked for a second opinion: for labels only, and as its network says it.

    What it was calibrated on is what the weight of its opinion is fitted on: it would seem to know these events.
    """
    return replace(release, calibration=Calibration(), task=replace(release.task, fields_for=()))


def _second_of(release: Release, folder: Path, *, threads: int, readings: int) -> Classifier | None:
    """Open what gives a release its second opinion; None where that has no weight."""
    wanted = release.second_opinion
    if wanted is None or not release.calibration.second_weight:
        return None
    model = Model(second_path(release, wanted, folder))
    with ExitStack() as failed:
        failed.callback(model.close)
        own = read_release(model)
        if own.task.label_names != release.task.label_names:
            raise UntrustedError(
                f"{model.path}: release {own.title} has the labels {list(own.task.label_names)}, and {release.title}, "
                f"which asks it for a second opinion, {list(release.task.label_names)}; refused it"
            )
        classifier = classifier_of(model, as_second(own), threads=threads, readings=readings)
        failed.pop_all()
    return classifier
