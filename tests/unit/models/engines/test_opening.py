"""What the centre's configuration opens."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from models.contracts.errors import ConfigError, UntrustedError
from models.contracts.wire import encode
from models.decoder import DecoderClassifier
from models.engines.fallback import FallbackClassifier
from models.engines.opening import open_engine
from tests.fakes.engine_server import EngineServer
from tests.fakes.tiny_models import RELEASE

TASK_FILE = str(Path(__file__).parents[4] / "models" / "tasks" / "soc-triage.toml")


def release_file(folder: Path, kind: str = "plain") -> str:
    path = folder / "release.json"
    prompt = replace(RELEASE.prompt, kind=kind)
    path.write_bytes(encode(replace(RELEASE, prompt=prompt)))
    return str(path)


def test_a_release_is_opened_as_on_a_gateway(decoder_file: Path) -> None:
    engine = open_engine("release", model=str(decoder_file), threads=1)

    assert isinstance(engine, DecoderClassifier)
    engine.close()


def test_a_model_behind_a_server_is_asked_by_a_release_in_a_file(engine_server: EngineServer, tmp_path: Path) -> None:
    engine = open_engine("openai", url=engine_server.url, task=release_file(tmp_path), budget_s=60)

    assert isinstance(engine, FallbackClassifier)
    assert engine.release == RELEASE
    assert engine.classify(["an event"])[0].unanswered == ""
    engine.close()


def test_a_server_that_is_not_there_does_not_stop_the_start(tmp_path: Path) -> None:
    with EngineServer() as gone:
        url = gone.url
    engine = open_engine("openai", url=url, task=release_file(tmp_path))

    assert engine.classify(["an event"])[0].unanswered == "engine-down"
    engine.close()


def test_a_task_alone_is_asked_in_the_models_own_chat(engine_server: EngineServer) -> None:
    with pytest.raises(UntrustedError, match="no chat template"):  # which this one has not
        open_engine("openai", url=engine_server.url, task=TASK_FILE, budget_s=60)


@pytest.mark.parametrize(
    ("kind", "settings", "says"),
    [
        ("openai", {"task": TASK_FILE}, "`url` is not set"),
        ("openai", {"url": "http://127.0.0.1:1"}, "`task` is not set"),
        ("openai", {"url": "http://127.0.0.1:1", "task": "no/such.toml"}, "the task file cannot be read"),
        ("openai", {"url": "http://127.0.0.1:1", "task": "no/such.json"}, "the release file cannot be read"),
        ("vllm", {"task": TASK_FILE}, "`model` is not set"),
        ("vllm", {"model": "no/such"}, r"has no `release\.json` beside it"),
    ],
)  # fmt: skip
def test_settings_that_cannot_work_are_the_operators_to_correct(kind: str, settings: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        open_engine(kind, **settings)  # type: ignore[arg-type]


def test_a_checkpoint_with_a_release_beside_it_takes_no_other_task(tmp_path: Path) -> None:
    release_file(tmp_path)
    with pytest.raises(ConfigError, match="unset one"):
        open_engine("vllm", model=str(tmp_path), task=TASK_FILE)


def test_an_encoders_release_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UntrustedError, match="a prompt of kind `encoder`, and a decoder is asked"):
        open_engine("openai", url="http://127.0.0.1:1", task=release_file(tmp_path, "encoder"))


def test_a_file_that_is_no_release_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "release.json"
    path.write_text('{"type": "release/9"}')
    with pytest.raises(UntrustedError, match="is a `release/9`"):
        open_engine("openai", url="http://127.0.0.1:1", task=str(path))
