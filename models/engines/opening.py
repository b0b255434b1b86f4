"""Opens what the centre asks: a release in this process, vLLM in a process of ours, or a server elsewhere."""

from pathlib import Path
from typing import Literal

from models.classifier import Classifier
from models.contracts.errors import ConfigError
from models.contracts.release import Release
from models.engines.fallback import FallbackClassifier
from models.release_file import read_decoder_release

EngineKind = Literal["release", "vllm", "openai"]
_BESIDE = "release.json"


def open_engine(
    kind: EngineKind,
    *,
    model: str = "",
    url: str = "",
    task: str = "",
    api_key: str = "",
    sha256: str = "",
    context_tokens: int = 1024,
    threads: int = 0,
    budget_s: float = 10.0,
    concurrency: int = 64,
    attempts: int = 3,
) -> Classifier:
    """Open an engine; those that may be slow or dead come with a fallback, and are never unavailable.

    Args:
        kind: `release` is a GGUF on llama.cpp, `vllm` a checkpoint in vLLM, `openai` a model behind a server.
        model: a release's name or path; a checkpoint's folder; a model's name at the server, none for its only one.
        url: where the server is, as `http://host:port`.
        task: a task file, or a release as JSON; a checkpoint may have its `release.json` beside it.
        api_key: what the server wants to know us by.
        sha256: what the file of a release hashes to.
        context_tokens: for the instruction, an event and the answer.
        threads: of a release; a core each, two at most, where there are none.
        budget_s: how long an event may take, retries included; then it goes to a person.
        concurrency: how many events are on their way to a server at once.
        attempts: how often a request is made of a server that is away or busy.

    Raises:
        ConfigError: the settings do not suit each other, or what they name is not there.
        UntrustedError: the model is not what was promised, or cannot answer the task.
    """
    if kind == "release":
        from models.opening import open_classifier  # noqa: PLC0415 - llama.cpp, which only this kind needs

        return open_classifier(model, sha256=sha256, task=task, threads=threads, context_tokens=context_tokens)
    if kind == "vllm":
        if not model:
            raise ConfigError("engine `vllm`: `model` is not set; give the folder of a checkpoint")
        release = _release_beside(Path(model), task)

        def start() -> Classifier:
            from models.engines.vllm_classifier import VllmClassifier  # noqa: PLC0415 - gigabytes, which only this kind needs

            return VllmClassifier(Path(model), release, context_tokens=context_tokens, budget_s=budget_s)

        return FallbackClassifier(start, release)
    if not url:
        raise ConfigError("engine `openai`: `url` is not set; give the server's, as `http://host:port`")
    if not task:
        raise ConfigError("engine `openai`: `task` is not set; give a task file, or a release as JSON")
    release = read_decoder_release(task)

    def connect() -> Classifier:
        from models.engines.openai_classifier import OpenAiClassifier  # noqa: PLC0415 - as above

        return OpenAiClassifier(
            url,
            release,
            model=model,
            api_key=api_key,
            context_tokens=context_tokens,
            budget_s=budget_s,
            concurrency=concurrency,
            attempts=attempts,
        )

    return FallbackClassifier(connect, release)


def _release_beside(checkpoint: Path, task: str) -> Release:
    beside = checkpoint / _BESIDE
    if beside.is_file():
        if task:
            raise ConfigError(f"{beside}: is a release with a task of its own, and `task` is set to {task}; unset one")
        return read_decoder_release(str(beside))
    if not task:
        raise ConfigError(f"{checkpoint}: has no `{_BESIDE}` beside it; set `task` to a task file, or to a release's")
    return read_decoder_release(task)
