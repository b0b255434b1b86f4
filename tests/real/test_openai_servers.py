"""Real servers owe what every classifier owes, say what llama.cpp says in this process, and may be killed or hang.

llama.cpp's server is compiled once; vLLM's runs in an environment of its own, which `./just vllm` makes.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace

from central.local_vllm import LocalVllm, missing
from models.classifier import Classifier
from models.engines.breaker import Patience
from models.engines.fallback import FallbackClassifier
from models.engines.openai_classifier import OpenAiClassifier
from models.opening import open_classifier
from tests.checks.classifier import CHECKS, CLOSING_CHECKS, LINES, MARKS, Check
from tests.conftest import absent
from tests.fakes.tiny_models import RELEASE
from tests.fakes.tiny_twins import Twins, tiny_twins
from tests.real.llama_server import LlamaServer

Server = LocalVllm | LlamaServer
BUDGET_S = 120.0  # an event's, on a machine that starves
WITHIN_S = 600.0
PLAIN = replace(RELEASE, task=replace(RELEASE.task, fields_for=()))  # a random model fills fields to the last token
SERVERS = ["vllm", "llama.cpp"]

pytestmark = pytest.mark.timeout(3600)  # the first time a server is compiled, and a vLLM that starves starts in minutes


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Twins:
    return tiny_twins(tmp_path_factory.mktemp("twins"))


@pytest.fixture(scope="module", params=SERVERS)
def shared(request: pytest.FixtureRequest, twins: Twins, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    if request.param == "vllm":
        if missing():
            absent(missing())
        server: Server = LocalVllm(folder, twins.checkpoint)
    else:
        request.getfixturevalue("llama_source")  # or it is said what is missing
        server = LlamaServer(folder, twins.gguf)
    try:
        server.start()
        with closing(opened(server)):  # the first answer of an engine takes several times as long as any other
            pass
        yield server
    finally:
        server.kill()


@pytest.fixture
def server(shared: Server) -> Iterator[Server]:
    """The server; it runs again after a test that hurt it."""
    yield shared
    if not shared.runs:
        shared.start()


@pytest.fixture(scope="module")
def classifier(shared: Server) -> Iterator[Classifier]:
    with closing(OpenAiClassifier(shared.url, RELEASE, budget_s=BUDGET_S)) as classifier:
        yield classifier


def opened(server: Server, budget_s: float = BUDGET_S, remembered: int = 0) -> OpenAiClassifier:
    return OpenAiClassifier(server.url, PLAIN, budget_s=budget_s, remembered=remembered)


def eventually(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + WITHIN_S
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_classifier_behind_a_server_owes(check: Check, classifier: Classifier) -> None:
    check(classifier)


@pytest.mark.parametrize("check", CLOSING_CHECKS, ids=lambda check: check.__name__)
def test_a_classifier_behind_a_server_that_is_closed_owes(check: Check, server: Server) -> None:
    check(opened(server))


def test_a_server_says_what_llama_cpp_says_of_the_same_weights(server: Server, twins: Twins) -> None:
    texts = [f"{line} {number}" for number in range(10) for line in LINES]
    with closing(opened(server)) as behind, closing(open_classifier(twins.gguf, threads=1)) as here:
        for there, mine in zip(behind.classify(texts), here.classify(texts), strict=True):
            assert there.unanswered == ""
            assert there.probabilities == pytest.approx(mine.probabilities, abs=0.02)
            assert there.label_mass == pytest.approx(mine.label_mass, rel=0.1)


def test_a_mark_in_an_event_is_read_as_the_text_it_looks_like(server: Server, twins: Twins) -> None:
    # Which tokens a vocabulary defines besides control tokens llama-server does not tell, so those it finds stay.
    marks = [mark for mark in MARKS if mark != "[PAD7]" or isinstance(server, LocalVllm)]
    texts = [f"sshd: {mark} by root" for mark in marks]
    with closing(opened(server)) as behind, closing(open_classifier(twins.gguf, threads=1)) as here:
        for there, mine in zip(behind.classify(texts), here.classify(texts), strict=True):
            assert there.unanswered == ""
            assert there.probabilities == pytest.approx(mine.probabilities, abs=0.02)


def test_a_server_that_is_killed_and_started_again_is_found_by_itself(server: Server) -> None:
    patience = Patience(misses=2, first_s=0.1, most_s=1.0)
    with closing(FallbackClassifier(lambda: opened(server), PLAIN, patience=patience)) as classifier:
        assert {opinion.unanswered for opinion in classifier.classify(LINES)} == {""}
        server.kill()
        assert {opinion.unanswered for opinion in classifier.classify(LINES)} == {"engine-down"}
        began = time.monotonic()
        assert {opinion.unanswered for opinion in classifier.classify(LINES * 100)} == {"engine-down"}
        assert time.monotonic() - began < 10  # nobody is asked any more
        server.start()
        assert eventually(lambda: classifier.is_answering)
        assert {opinion.unanswered for opinion in classifier.classify(LINES)} == {""}


def test_a_server_that_hangs_is_given_up_in_an_events_time_and_found_again_when_it_goes_on(server: Server) -> None:
    patience = Patience(misses=2, first_s=0.1, most_s=1.0)
    budgets = iter([BUDGET_S])

    def connect() -> Classifier:
        return opened(server, next(budgets, 20.0))

    with closing(FallbackClassifier(connect, PLAIN, patience=patience)) as classifier:
        engine = classifier._engine
        assert isinstance(engine, OpenAiClassifier)
        assert {opinion.unanswered for opinion in classifier.classify(LINES)} == {""}
        engine._budget_s = 2.0
        server.hang()
        try:
            began = time.monotonic()
            assert {opinion.unanswered for opinion in classifier.classify(LINES)} == {"engine-timeout"}
            assert time.monotonic() - began < 30
            assert {opinion.unanswered for opinion in classifier.classify(LINES)} == {"engine-down"}
        finally:
            server.go_on()
        assert eventually(lambda: classifier.is_answering)
        assert {opinion.unanswered for opinion in classifier.classify(LINES)} == {""}


@pytest.mark.usefixtures("llama_source")
def test_a_server_that_comes_back_with_another_model_is_read_anew(twins: Twins, tmp_path: Path) -> None:
    first, second = (LlamaServer(tmp_path, each.gguf) for each in (twins, tiny_twins(tmp_path, seed=7)))
    second._port = first._port
    patience = Patience(misses=2, first_s=0.1, most_s=1.0)
    first.start()
    try:
        with closing(FallbackClassifier(lambda: opened(first, remembered=100), PLAIN, patience=patience)) as classifier:
            before = classifier.classify(LINES)
            first.kill()
            classifier.classify([f"{line} again" for line in LINES])
            second.start()
            assert eventually(lambda: classifier.is_answering)
            assert all(one != another for one, another in zip(before, classifier.classify(LINES), strict=True))
    finally:
        first.kill()
        second.kill()
