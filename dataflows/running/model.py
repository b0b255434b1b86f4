"""Opens the model that the configuration names: the right file, tried in a child process, then loaded."""

from time import monotonic

import structlog
from msgspec import Struct

from dataflows.sections import Model
from models.classifier import Classifier
from models.opening import open_classifier
from models.release_file import digest_of, release_path
from models.trial import try_model


class OpenedModel(Struct, frozen=True):
    """A classifier that answers, and the digest of the file it came from."""

    classifier: Classifier
    sha256: str


log = structlog.get_logger()


def open_model(model: Model) -> OpenedModel:
    """Open it.

    Raises:
        ConfigError: there is no such file, or the configuration does not suit it.
        UntrustedError: it is not what was promised, cannot answer the task, or crashes.
    """
    begun = monotonic()
    path = release_path(model.release)
    # What was tried is what is loaded, also where the configuration trusts any file: it may be replaced in between.
    sha256 = model.sha256.lower() or digest_of(path)
    report = try_model(path, sha256=sha256, task=model.task, context_tokens=model.context_tokens)
    classifier = open_classifier(
        path, sha256=sha256, task=model.task, threads=model.threads, context_tokens=model.context_tokens
    )
    log.info(
        "release_loaded",
        release=classifier.release.title,
        path=str(path),
        sha256=sha256,
        golden_events=len(report.answers),
        seconds=round(monotonic() - begun, 2),
    )
    return OpenedModel(classifier, sha256)
