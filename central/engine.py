"""Opens the model of the centre, whatever runs it."""

from msgspec import Struct

from central.config import Engine
from dataflows.running.model import open_model
from models.classifier import Classifier


class OpenedEngine(Struct, frozen=True):
    """A classifier that answers, and what its cached answers depend on."""

    classifier: Classifier
    sha256: str
    context_tokens: int
    window_events: int  # asked about at once


def open_engine(engine: Engine) -> OpenedEngine:
    """Open it.

    Raises:
        ConfigError: it is not there, or the configuration does not suit it.
        UntrustedError: it is not what was promised.
        UnavailableError: whoever serves it is away.
    """
    opened = open_model(engine)
    return OpenedEngine(opened.classifier, opened.sha256, engine.context_tokens, engine.batch_events)
