"""Training end to end in small: vocabulary, warm start, a few steps, and the GGUF that comes of it."""

from pathlib import Path

import numpy as np
import torch

from models.llama import Batch, Context, Model
from quantize.convert import write_gguf
from quantize.default_release import PROMPT, read_task
from quantize.event_types import in_fold, read_event_types
from quantize.expand import example_of, expand
from quantize.network import Llama, Shape
from quantize.train import Plan, train
from quantize.vocabulary import END_OF_TEXT, encode, ids, train_vocabulary

TASK = read_task()
TYPES = in_fold(read_event_types(), "train")[::20]
SHAPE = Shape(layers=1)
TOKENIZER = train_vocabulary(
    [example_of(line, TASK).body for line in expand(in_fold(read_event_types(), "train"), 1, 5)], TASK, PROMPT
)


def trained() -> tuple[Llama, list[float]]:
    losses: list[float] = []
    network = train(
        TYPES,
        TASK,
        PROMPT,
        TOKENIZER,
        SHAPE,
        taught=[(1 / 3, 1 / 3, 1 / 3)] * sum(len(kind.templates) for kind in TYPES),
        plan=Plan(epochs=1, warm_epochs=1),
        report=lambda progress: losses.append(progress.label_loss),
        keep=lambda _: None,
    )
    return network, losses


def test_the_same_plan_gives_the_same_weights() -> None:
    torch.set_num_threads(1)
    (once, losses), (again, _) = trained(), trained()

    assert losses[-1] < losses[0]
    assert all(torch.equal(left, right) for left, right in zip(once.parameters(), again.parameters(), strict=True))


def test_the_gguf_tokenises_and_answers_as_the_network_does(tmp_path: Path) -> None:
    torch.manual_seed(3)
    network = Llama(SHAPE).eval()
    write_gguf(network, TOKENIZER, "a network", tmp_path / "network.gguf")
    examples = [example_of(line, TASK) for line in expand(TYPES, copies=1, seed=9)]
    texts = [f" {example.body}" for example in examples] + [f" {END_OF_TEXT} ☃ \t  x"]

    with Model(tmp_path / "network.gguf") as model:
        assert [model.vocabulary.encode(text) for text in texts] == [ids(TOKENIZER, text) for text in texts]

        tokens = encode(TOKENIZER, TASK, PROMPT, examples[0], 448).event
        context = Context(model, cells=512, rows=512, sequences=2, attention="plain")
        batch = Batch(len(tokens))
        batch.token[:] = tokens
        batch.position[:] = np.arange(len(tokens))
        batch.wanted[-1] = 1
        said = context.decode(batch, 0, len(tokens))[0].copy()

    with torch.no_grad():
        wanted = network.logits(network(torch.tensor([tokens])))[0, -1].numpy()
    assert np.abs(said - wanted).max() < 0.01
