"""vLLM's own engine behind the port: it owes what all owe, and may be killed or hang. `./just test-vllm` runs these."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace
from vllm import SamplingParams, TokensPrompt

from models.contracts.errors import ConfigError, UntrustedError
from models.contracts.release import Calibration, Release
from models.contracts.task import Label
from models.contracts.wire import encode
from models.engines import vllm_classifier
from models.engines.breaker import Patience
from models.engines.fallback import FallbackClassifier
from models.engines.opening import open_engine
from models.engines.vllm_classifier import VllmClassifier
from tests.checks.classifier import CHECKS, CLOSING_CHECKS, LINES, MARKS, Check
from tests.fakes.tiny_models import RELEASE
from tests.fakes.tiny_twins import Twins, tiny_twins

BUDGET_S = 300.0  # a batch's, on a machine that starves
WITHIN_S = 1200.0
OPTIONS = {"dtype": "float16", "enforce_eager": True, "max_num_seqs": 64, "max_logprobs": -1}

pytestmark = pytest.mark.timeout(3600)  # an engine starts in half a minute, or in five where everything waits


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Twins:
    return tiny_twins(tmp_path_factory.mktemp("twins"))


@pytest.fixture(scope="module")
def classifier(twins: Twins) -> Iterator[VllmClassifier]:
    with closing(started(twins)) as classifier:
        yield classifier


def started(twins: Twins, release: Release = RELEASE) -> VllmClassifier:
    return VllmClassifier(twins.checkpoint, release, budget_s=BUDGET_S, **OPTIONS)


def eventually(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + WITHIN_S
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def fresh(number: int) -> list[str]:
    """Texts that nobody has asked about."""
    return [f"{line} {number}" for line in LINES]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_classifier_in_vllm_owes(check: Check, classifier: VllmClassifier) -> None:
    check(classifier)


def test_the_engine_is_given_tokens_and_none_of_them_is_a_mark_of_an_event(classifier: VllmClassifier) -> None:
    tokeniser = classifier._llm.get_tokenizer()
    marks = set(tokeniser.added_tokens_decoder)
    for mark in MARKS:
        suffix = classifier._task.suffix(f"a{mark}b")

        assert marks.isdisjoint(suffix.tokens.tolist())
        assert tokeniser.decode(suffix.tokens).startswith(f"a{mark}b".replace("\n", " "))


def test_the_probabilities_are_the_shares_of_the_full_softmax_and_the_mass_is_kept(classifier: VllmClassifier) -> None:
    task = classifier._task
    for text in fresh(1):
        (opinion,) = classifier.classify([text])
        prompt = TokensPrompt(prompt_token_ids=[*task.before, *task.suffix(text).tokens.tolist()])
        (whole,) = classifier._llm.generate(
            [prompt], SamplingParams(max_tokens=1, temperature=0, logprobs=-1), use_tqdm=False
        )
        shares = {token: np.exp(told.logprob) for token, told in whole.outputs[0].logprobs[0].items()}
        labels = [shares[tokens[0]] for tokens in task.label_tokens]

        assert sum(shares.values()) == pytest.approx(1, abs=1e-3)
        assert opinion.label_mass == pytest.approx(sum(labels), rel=0.05)
        assert opinion.probabilities == pytest.approx([share / sum(labels) for share in labels], abs=0.02)


def test_labels_that_begin_alike_are_asked_about_in_as_many_requests_as_it_takes(
    twins: Twins, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_classifier, "_MOST_ANSWERS", 5)
    names = [f"{first}{second}" for first in "abcdefghijklmnop" for second in "0123456789ABCDEF"]
    labels = tuple(Label(name, "") for name in names)
    task = replace(RELEASE.task, labels=labels, default_label=names[0], fields_for=())
    flat = replace(RELEASE, task=task, calibration=Calibration(temperature=1000.0))
    with closing(started(twins, flat)) as classifier:
        questions = classifier._task.labels.questions
        opinions = classifier.classify(LINES)

    assert max(len(question.answers) for question in questions) == 5
    assert len(questions) > 16 * 4
    for opinion in opinions:
        assert opinion.probabilities == pytest.approx([1 / 256] * 256, rel=0.1)
        assert 0 < opinion.label_mass < 1


@pytest.mark.parametrize("check", CLOSING_CHECKS, ids=lambda check: check.__name__)
def test_a_classifier_in_vllm_that_is_closed_owes(check: Check, twins: Twins) -> None:
    check(started(twins))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hung"])
def test_an_engine_that_is_hurt_is_replaced_and_no_event_is_without_an_opinion(
    twins: Twins, number: signal.Signals
) -> None:
    patience = Patience(misses=1, first_s=0.1, most_s=1.0)
    with closing(FallbackClassifier(lambda: started(twins), RELEASE, patience=patience)) as classifier:
        assert {opinion.unanswered for opinion in classifier.classify(fresh(0))} == {""}
        engine = classifier._engine
        assert isinstance(engine, VllmClassifier)
        (process,) = engine._processes
        engine._budget_s = 10.0
        os.kill(process.pid, number)
        began = time.monotonic()
        (reason,) = {opinion.unanswered for opinion in classifier.classify(fresh(1))}

        assert reason == ("engine-down" if number == signal.SIGKILL else "engine-timeout")
        assert time.monotonic() - began < 60
        assert {opinion.unanswered for opinion in classifier.classify(fresh(2))} == {"engine-down"}
        assert eventually(lambda: classifier.is_answering)
        assert {opinion.unanswered for opinion in classifier.classify(fresh(3))} == {""}
        assert not process.is_alive()
        assert engine._workers
        assert not any(worker.is_running() for worker in engine._workers)
        # Whoever waited for the engine does so no more.
        assert eventually(lambda: "vllm-engine" not in {thread.name for thread in threading.enumerate()})


def test_the_centre_opens_a_checkpoint_with_its_release_beside_it(
    tmp_path: Path,
) -> None:
    twins = tiny_twins(tmp_path)
    (twins.checkpoint / "release.json").write_bytes(encode(RELEASE))
    engine = open_engine("vllm", model=str(twins.checkpoint), budget_s=BUDGET_S)

    with closing(engine):
        assert engine.release == RELEASE
        assert [opinion.unanswered for opinion in engine.classify(LINES[:2])] == ["", ""]


def test_a_folder_without_a_checkpoint_is_the_operators_to_correct(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no `config\.json`"):
        VllmClassifier(tmp_path, RELEASE)


def test_a_checkpoint_that_vllm_does_not_know_is_refused(tmp_path: Path) -> None:
    twins = tiny_twins(tmp_path)
    config = twins.checkpoint / "config.json"
    config.write_text(config.read_text().replace("LlamaForCausalLM", "NoSuchModel").replace('"llama"', '"nosuch"'))

    with pytest.raises(UntrustedError, match="vLLM does not load it"):
        started(twins)
