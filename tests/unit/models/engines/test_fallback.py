"""What always answers: an engine that is dead, slow or another one by now stops nothing, and comes back by itself."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

import pytest

from models.classifier import Classifier
from models.contracts.errors import ConfigError, InputError, UnavailableError, UntrustedError
from models.contracts.opinion import Opinion
from models.engines.breaker import Patience
from models.engines.fallback import FallbackClassifier
from models.engines.openai_classifier import OpenAiClassifier
from models.engines.unanswered import unanswered
from tests.fakes.classifier import BENIGN, ScriptedClassifier, release
from tests.fakes.engine_server import EngineServer
from tests.fakes.tiny_models import RELEASE

SOON = Patience(misses=8, first_s=0.05, most_s=0.2)
WITHIN_S = 60.0
MINE = release()


class Engine(ScriptedClassifier):
    """One that is away from its `dies_after`th batch on, and remembers whether it was closed."""

    def __init__(self, answer: Callable[[str], Opinion] = lambda _: BENIGN, dies_after: int = 1 << 30) -> None:
        super().__init__(answer)
        self._left = dies_after
        self.closed = threading.Event()

    def classify(self, texts: Sequence[str]) -> list[Opinion]:
        if not self._left:
            raise UnavailableError("engine: is dead")
        self._left -= 1
        return super().classify(texts)

    def close(self) -> None:
        self.closed.set()


class Starting:
    """Starts what it is told to, one after the other: an engine, or an error."""

    def __init__(self, *outcomes: Classifier | Exception) -> None:
        self._outcomes: Iterator[Classifier | Exception] = iter(outcomes)
        self.times: list[float] = []

    def __call__(self) -> Classifier:
        self.times.append(time.monotonic())
        outcome = next(self._outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def reasons(classifier: Classifier, *texts: str) -> set[str]:
    return {opinion.unanswered for opinion in classifier.classify(texts)}


def eventually(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + WITHIN_S
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_an_engine_that_dies_is_replaced_by_one_that_answers_and_no_event_is_without_an_opinion() -> None:
    dying, fresh = Engine(dies_after=1), Engine()
    start = Starting(dying, UnavailableError("not yet"), fresh)
    with closing(FallbackClassifier(start, MINE, patience=SOON)) as classifier:
        assert reasons(classifier, "a", "b") == {""}
        (opinion,) = classifier.classify(["c"])
        assert (opinion.unanswered, opinion.label_mass, sum(opinion.probabilities)) == ("engine-down", 0, 1)
        assert dying.closed.is_set()
        assert eventually(lambda: classifier.is_answering)
        assert reasons(classifier, "d") == {""}

    assert fresh.asked == [["d"]]
    assert fresh.closed.is_set()


def test_while_an_engine_is_looked_for_nobody_waits_for_it() -> None:
    never = threading.Event()

    def start() -> Classifier:
        if never.is_set():
            raise UnavailableError("gone")
        never.set()
        return Engine(dies_after=0)

    with closing(FallbackClassifier(start, MINE, patience=Patience(first_s=3600, most_s=3600))) as classifier:
        began = time.monotonic()
        for _ in range(1000):
            assert reasons(classifier, "a", "b") == {"engine-down"}

        assert time.monotonic() - began < WITHIN_S


def test_an_engine_that_is_not_there_at_the_start_is_looked_for() -> None:
    start = Starting(UnavailableError("booting"), UnavailableError("booting"), Engine())
    with closing(FallbackClassifier(start, MINE, patience=SOON)) as classifier:
        assert reasons(classifier, "a") <= {"engine-down", ""}
        assert eventually(lambda: classifier.is_answering)
        assert reasons(classifier, "a") == {""}

    assert len(start.times) == 3


@pytest.mark.parametrize("error", [ConfigError("no such model"), UntrustedError("another model")])
def test_an_engine_that_can_never_be_asked_stops_the_start(error: Exception) -> None:
    with pytest.raises(type(error), match=str(error)):
        FallbackClassifier(Starting(error), MINE)


def test_an_engine_that_comes_back_as_another_is_not_asked_and_that_is_the_reason() -> None:
    start = Starting(Engine(dies_after=0), UntrustedError("another model"), ConfigError("no such model"), Engine())
    with closing(FallbackClassifier(start, MINE, patience=SOON)) as classifier:
        seen = set()

        def is_back() -> bool:
            seen.update(reasons(classifier, "a"))
            return "" in seen

        assert eventually(is_back)

    assert seen == {"engine-down", "engine-untrusted", ""}


def test_events_that_go_unanswered_in_a_row_give_an_engine_up_and_others_in_between_do_not() -> None:
    slow = Engine(lambda text: unanswered("engine-timeout", 3) if "slow" in text else BENIGN)
    start = Starting(slow, Engine())
    with closing(FallbackClassifier(start, MINE, patience=SOON)) as classifier:
        for _ in range(20):
            assert reasons(classifier, *["slow"] * 7, "fast") == {"engine-timeout", ""}
        assert not slow.closed.is_set()
        reasons(classifier, *["slow"] * 7)
        assert not slow.closed.is_set()
        assert reasons(classifier, "slow") == {"engine-timeout"}
        assert slow.closed.wait(WITHIN_S)
        assert eventually(lambda: classifier.is_answering)


def test_events_that_an_engine_refuses_never_give_it_up() -> None:
    picky = Engine(lambda _: unanswered("engine-refused", 3))
    with closing(FallbackClassifier(Starting(picky), MINE, patience=SOON)) as classifier:
        for _ in range(20):
            assert reasons(classifier, *["strange"] * 20) == {"engine-refused"}

        assert not picky.closed.is_set()


def test_a_text_that_cannot_be_classified_at_all_is_still_the_callers() -> None:
    with (
        closing(FallbackClassifier(Starting(Engine()), MINE)) as classifier,
        pytest.raises(InputError, match="a text is poison"),
    ):
        classifier.classify(["poison"])


def test_one_that_is_closed_while_it_looks_for_an_engine_looks_no_further() -> None:
    start = Starting(Engine(dies_after=0), *[UnavailableError("gone")] * 3)
    classifier = FallbackClassifier(start, MINE, patience=Patience(first_s=3600, most_s=3600))
    reasons(classifier, "a")
    classifier.close()
    with pytest.raises(UnavailableError, match="closed"):
        classifier.classify(["a"])

    assert len(start.times) == 1
    assert "engine-search" not in {thread.name for thread in threading.enumerate()}


def test_a_server_that_ends_and_comes_back_is_found_again_by_itself() -> None:
    first = EngineServer()
    port = first.port
    patience = Patience(misses=2, first_s=0.05, most_s=0.2)

    def connect() -> Classifier:
        return OpenAiClassifier(f"http://127.0.0.1:{port}", RELEASE, budget_s=WITHIN_S, attempts=1)

    with closing(FallbackClassifier(connect, RELEASE, patience=patience)) as classifier:
        assert reasons(classifier, "one") == {""}
        first.stop()
        assert reasons(classifier, "two", "three") == {"engine-down"}
        assert reasons(classifier, "four") == {"engine-down"}
        with EngineServer(port=port):
            assert eventually(lambda: classifier.is_answering)
            assert reasons(classifier, "two", "three", "four") == {""}
