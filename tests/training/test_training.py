"""Training from scratch end to end in small: vocabulary, warm start, a few steps, checkpoint, and its GGUF."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from models.contracts.release import Release
from models.llama import Batch, Context, Model
from quantize import round_trip
from quantize.ask import ask
from quantize.convert import convert
from quantize.event_types import in_fold, read_event_types
from quantize.examples import Examples, HeldOut
from quantize.expand import example_of, expand
from quantize.network import Llama, Shape
from quantize.recipe import TrainFromScratch, read_task
from quantize.scratch import PROMPT, save_checkpoint, train_from_scratch
from quantize.train import Plan, Progress, train
from quantize.vocabulary import END_OF_TEXT, encode, ids, train_vocabulary

ROOT = Path(__file__).parents[2]
TASK = read_task(ROOT / "models" / "tasks" / "soc-triage.toml")
LEARNT = in_fold(read_event_types(), "train")
TYPES = LEARNT[::100]
SHAPE = Shape(layers=1)
TOKENIZER = train_vocabulary([example_of(line, TASK).body for line in expand(LEARNT[::2], 1, 5)], TASK, PROMPT)
BODIES = [example_of(line, TASK).body for line in expand(TYPES, copies=1, seed=9)]

pytestmark = pytest.mark.timeout(600)  # the converter starts torch anew: seconds, or minutes on a starved machine


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    torch.set_num_threads(1)


def trained(state: Path, report: Callable[[Progress], None] = lambda _: None) -> Llama:
    return train(
        TYPES,
        TASK,
        PROMPT,
        TOKENIZER,
        SHAPE,
        taught=[(1 / 3, 1 / 3, 1 / 3)] * sum(len(kind.templates) for kind in TYPES),
        plan=Plan(epochs=2, warm_epochs=1),
        report=report,
        state=state,
    )


def equal(one: Llama, other: Llama) -> bool:
    return all(torch.equal(left, right) for left, right in zip(one.parameters(), other.parameters(), strict=True))


def test_the_same_plan_gives_the_same_weights_whether_it_was_interrupted_or_not(tmp_path: Path) -> None:
    losses: list[float] = []
    whole = trained(tmp_path / "whole.pt", lambda progress: losses.append(progress.label_loss))
    steps = len(losses)

    def interrupt(progress: Progress) -> None:
        if progress.step > 0.75 * progress.steps:
            raise KeyboardInterrupt

    gone_on: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "broken.pt", interrupt)
    again = trained(tmp_path / "broken.pt", lambda progress: gone_on.append(progress.step))

    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    assert 0 < len(gone_on) < steps
    assert gone_on[-1] == steps
    assert equal(whole, again)


def test_a_checkpoint_is_all_that_is_left_of_a_training_that_was_interrupted(tmp_path: Path) -> None:
    nothing = HeldOut([], np.array([]))
    examples = Examples(
        draw=lambda _: [], calibration=nothing, test=nothing, foreign=[], foreign_test=[], digest="0", types=TYPES[::4]
    )
    said: list[tuple[int, int]] = []

    def interrupt(done: int, steps: int) -> None:
        if done > 0.75 * steps:
            raise KeyboardInterrupt

    def go(tick: Callable[[int, int], None]) -> None:
        train_from_scratch(examples, TASK, TrainFromScratch(epochs=2), seed=1, out=tmp_path, tick=tick)

    with pytest.raises(KeyboardInterrupt):
        go(interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]
    go(lambda done, steps: said.append((done, steps)))

    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert said[0][0] > 1
    assert said[-1][0] == said[-1][1]


def test_the_gguf_tokenises_and_answers_as_the_network_does(tmp_path: Path) -> None:
    torch.manual_seed(3)
    network = Llama(SHAPE).eval()
    save_checkpoint(network, TOKENIZER, tmp_path)
    path = tmp_path / "network.gguf"
    convert(tmp_path, path)
    texts = [f" {body}" for body in BODIES] + [f" {END_OF_TEXT} ☃ \t  x"]

    with Model(path) as model:
        assert [model.vocabulary.encode(text) for text in texts] == [ids(TOKENIZER, text) for text in texts]
        assert model.vocabulary.size == SHAPE.vocabulary

        example = example_of(next(expand(TYPES, copies=1, seed=9)), TASK)
        tokens = encode(TOKENIZER, TASK, PROMPT, example, 448).event
        context = Context(model, cells=512, rows=512, sequences=2, attention="plain")
        batch = Batch(len(tokens))
        batch.token[:] = tokens
        batch.position[:] = np.arange(len(tokens))
        batch.wanted[-1] = 1
        said = context.decode(batch, 0, len(tokens))[0].copy()

    with torch.no_grad():
        wanted = network.logits(network(torch.tensor([tokens])))[0, -1].numpy()
    assert np.abs(said - wanted).max() < 0.01

    outcome = round_trip.check(tmp_path, path, [*BODIES[:50], f"a text with {END_OF_TEXT} in it"])
    assert outcome.tokenised_alike == outcome.texts == 51
    assert outcome.most_apart < 0.05

    answers = ask(path, Release(name="small", number=1, task=TASK, prompt=PROMPT), BODIES[:8], fields=True)
    assert answers.probabilities.shape == (8, 3)
    assert np.allclose(answers.probabilities.sum(axis=1), 1.0)
