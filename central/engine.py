"""Opens the model of the centre, whatever runs it."""

from hashlib import sha256

import msgspec
from msgspec import Struct

from central.config import Engine, OpenAiEngine, ReleaseEngine, VllmEngine
from dataflows.running.model import open_model
from dataflows.sections import read_password
from models.classifier import Classifier
from models.engines import opening


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
    """
    match engine:
        case ReleaseEngine():
            opened = open_model(engine)
            return OpenedEngine(opened.classifier, opened.sha256, engine.context_tokens, engine.batch_events)
        case VllmEngine():
            classifier = opening.open_engine(
                "vllm",
                model=engine.model,
                task=engine.task,
                context_tokens=engine.context_tokens,
                budget_s=engine.budget_s,
            )
        case OpenAiEngine():
            classifier = opening.open_engine(
                "openai",
                model=engine.model,
                url=engine.url,
                task=engine.task,
                api_key=read_password("`engine`", engine.api_key_file),
                context_tokens=engine.context_tokens,
                budget_s=engine.budget_s,
                concurrency=engine.concurrency,
                attempts=engine.attempts,
            )
    # What a server serves under a name may change, and nobody tells us: the cache goes by the settings.
    digest = sha256(msgspec.json.encode(engine)).hexdigest()
    return OpenedEngine(classifier, digest, engine.context_tokens, engine.window_events)
