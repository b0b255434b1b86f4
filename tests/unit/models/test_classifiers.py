"""Every classifier against every check."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from models.classifier import Classifier
from models.engines.fallback import FallbackClassifier
from models.engines.openai_classifier import OpenAiClassifier
from models.opening import open_classifier
from models.release_file import SHIPPED
from models.table import TableClassifier
from tests.checks.classifier import CHECKS, CLOSING_CHECKS, Check
from tests.fakes.engine_server import EngineServer
from tests.fakes.tiny_models import RELEASE, TASK, tiny_decoder, tiny_reader

TASK_FILE = """
name = "soc-triage"
instruction = "Read one event from a log and answer with one label."
default_label = "suspicious"
fields_for = ["critical", "benign"]
labels = [["benign", "routine"], ["suspicious", "worth a look"], ["critical", "an attack"]]
"""
SERVER_S = 60.0  # an event may take so long on a starved machine
SHIPPED_NAMES = sorted(path.stem for path in SHIPPED.glob("*.gguf"))
KINDS = [
    "table",
    "decoder",
    "decoder on two threads",
    "instruct",
    "labels of many tokens",
    "encoder",
    "encoder with fields",
    "decoder behind a server",
    "decoder behind a server, with a fallback",
    *SHIPPED_NAMES,
]


@pytest.fixture(scope="module", params=KINDS)
def classifier(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Classifier]:
    built = build(request.param, request, tmp_path_factory.mktemp("models"))
    yield built
    built.close()


def build(kind: str, request: pytest.FixtureRequest, folder: Path) -> Classifier:
    def file(name: str) -> Path:
        path: Path = request.getfixturevalue(name)
        return path

    if kind == "table":
        return TableClassifier(RELEASE)
    if kind == "instruct":
        task = folder / "task.toml"
        lines = [f'[[labels]]\nname = "{label.name}"\ndescription = "{label.description}"' for label in TASK.labels]
        task.write_text("\n".join([*TASK_FILE.strip().splitlines()[:-1], *lines]))
        return open_classifier(file("instruct_file"), task=str(task), threads=1)
    if kind == "labels of many tokens":
        return open_classifier(tiny_decoder(folder / "bytes.gguf", words=("x",)), threads=2)
    if kind.startswith("encoder"):
        path = file("encoder_file") if kind == "encoder" else tiny_reader(folder / "reader.gguf")
        return open_classifier(path, threads=2)
    if "server" in kind:
        server: EngineServer = request.getfixturevalue("engine_server")

        def connect() -> Classifier:
            return OpenAiClassifier(server.url, RELEASE, budget_s=SERVER_S)

        return FallbackClassifier(connect, RELEASE) if "fallback" in kind else connect()
    return open_classifier(
        kind if kind in SHIPPED_NAMES else file("decoder_file"), threads=1 if kind == "decoder" else 2
    )


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_classifier_owes(check: Check, classifier: Classifier) -> None:
    check(classifier)


@pytest.mark.parametrize("check", CLOSING_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("kind", KINDS)
def test_a_classifier_that_is_closed_owes(
    check: Check, kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    check(build(kind, request, tmp_path))
