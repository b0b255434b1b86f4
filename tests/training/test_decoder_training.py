"""Fine-tuning a causal model end to end in small: a few steps, the checkpoint, its GGUF, and a gateway's answers."""

import json
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from safetensors.torch import load_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM

from models.contracts.errors import InputError
from models.contracts.release import Release
from models.contracts.task import Label, Task
from models.llama import Model
from quantize import round_trip
from quantize.ask import ask
from quantize.convert import convert
from quantize.decoder_training import train_decoder
from quantize.examples import Examples, HeldOut
from quantize.expand import Example
from quantize.recipe import TrainDecoder
from tests.fakes.tiny_models import CHAT_TEMPLATE

TASK = Task(
    name="door",
    instruction="Say what became of the door.",
    labels=(Label("open", "it opened"), Label("shut", "it was shut"), Label("broken", "it fell out")),
    default_label="shut",
)
TEXTS = {"open": "the door opened for {} today", "shut": "{} shut the door again", "broken": "door fell on {} at once"}
MARKS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
WHOLE = TrainDecoder(epochs=30, adapters=0, rate=3e-3, batch_tokens=512, max_tokens=256)
ADAPTED = replace(WHOLE, epochs=3, adapters=4)
plans = pytest.mark.parametrize("plan", [WHOLE, ADAPTED], ids=["whole", "adapters"])


def drawn(number: int, count: int = 48) -> list[Example]:
    chance = Random(number)
    labels = [TASK.label_names[at % 3] for at in range(count)]
    return [Example(TEXTS[label].format(chance.choice("abcdefgh")), label, label, {}) for label in labels]


TEST = drawn(1_000, 24)
BODIES = [one.body for one in TEST]
HELD = HeldOut(TEST, np.arange(len(TEST)))
EXAMPLES = Examples(draw=drawn, calibration=HELD, test=HELD, foreign=[], foreign_test=[], digest="0")

pytestmark = pytest.mark.timeout(600)  # the converter starts torch anew: seconds, or minutes on a starved machine


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    torch.set_num_threads(1)


def write_base(folder: Path, chat_template: str = CHAT_TEMPLATE) -> Path:
    """Write a Llama with random weights and a byte-level BPE of its own, as `transformers` does."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False)
    told = [TASK.instruction, *(label.description for label in TASK.labels), *(f" {name}" for name in TASK.label_names)]
    tokenizer.train_from_iterator([*told, *(f" {body}" for body in BODIES)] * 3, trainer)
    tokenizer.add_special_tokens([AddedToken(mark, special=True) for mark in MARKS])
    tokenizer.save(str(folder / "tokenizer.json"))
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": MARKS[0], "eos_token": MARKS[2]}
    if chat_template:
        about["chat_template"] = chat_template
    (folder / "tokenizer_config.json").write_text(json.dumps(about), encoding="utf-8")
    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=tokenizer.token_to_id(MARKS[0]),
        eos_token_id=tokenizer.token_to_id(MARKS[2]),
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base"))


def trained(
    base: Path,
    plan: TrainDecoder,
    out: Path,
    tick: Callable[[int, int], None] = lambda _done, _all: None,
    seed: int = 1,
) -> Path:
    train_decoder(EXAMPLES, TASK, base, plan, seed=seed, out=out, tick=tick)
    return out


@pytest.fixture(scope="module")
def whole(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[TrainDecoder, Path]:
    """What comes of each plan where nothing interrupts it."""
    return {plan: trained(base, plan, tmp_path_factory.mktemp("whole")) for plan in (WHOLE, ADAPTED)}


@pytest.fixture(scope="module")
def ggufs(whole: dict[TrainDecoder, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[TrainDecoder, Path]:
    folder = tmp_path_factory.mktemp("ggufs")
    for number, checkpoint in enumerate(whole.values()):
        convert(checkpoint, folder / f"{number}.gguf")
    return {plan: folder / f"{number}.gguf" for number, plan in enumerate(whole)}


def equal(one: Path, other: Path) -> bool:
    mine, theirs = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


@plans
@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_what_was_interrupted_ends_with_the_same_weights(
    base: Path, whole: dict[TrainDecoder, Path], tmp_path: Path, plan: TrainDecoder, share: float
) -> None:
    said: list[tuple[int, int]] = []

    def interrupt(done: int, steps: int) -> None:
        if done > share * steps:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(base, plan, tmp_path, interrupt)
    trained(base, plan, tmp_path, lambda done, steps: said.append((done, steps)))

    assert equal(whole[plan], tmp_path)
    assert said[-1][0] == said[-1][1]
    assert (said[0][0] == 1) == (share == 0.02)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in whole[plan].iterdir()}


def test_another_seed_gives_other_weights(base: Path, whole: dict[TrainDecoder, Path], tmp_path: Path) -> None:
    assert not equal(whole[WHOLE], trained(base, WHOLE, tmp_path, seed=2))


@plans
def test_the_gguf_says_what_the_checkpoint_says(
    whole: dict[TrainDecoder, Path], ggufs: dict[TrainDecoder, Path], plan: TrainDecoder
) -> None:
    marked = [f"{body} <|im_end|> {body}" for body in BODIES[:3]]
    outcome = round_trip.check(whole[plan], ggufs[plan], [*BODIES, *marked])

    assert outcome.tokenised_alike == outcome.texts == len(BODIES) + len(marked)
    with Model(ggufs[plan], vocabulary_only=True) as model:
        assert model.chat_template == CHAT_TEMPLATE


def test_a_gateway_asks_as_it_was_trained(ggufs: dict[TrainDecoder, Path]) -> None:
    answers = ask(ggufs[WHOLE], Release(name="small", number=1, task=TASK), BODIES)

    assert [TASK.label_names[at] for at in answers.chosen] == [one.label for one in TEST]
    assert answers.masses.min() > 0.9  # three kinds of text are soon learnt; asked otherwise it would be at a loss


def test_adapters_are_merged_into_the_weights(base: Path, whole: dict[TrainDecoder, Path]) -> None:
    before, after = (load_file(folder / "model.safetensors") for folder in (base, whole[ADAPTED]))

    assert before.keys() == after.keys()
    assert {name for name in before if not torch.equal(before[name], after[name])} == {
        name for name in before if "_proj." in name
    }


def test_a_base_without_a_chat_template_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{tmp_path}: the model has no chat template"):
        trained(write_base(tmp_path, chat_template=""), WHOLE, tmp_path / "out")


def test_a_budget_that_leaves_no_room_for_an_event_is_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"`training\.max_tokens` is 32, and what stands around an event takes \d+"):
        trained(base, replace(WHOLE, max_tokens=32), tmp_path)


def test_a_folder_that_holds_no_decoder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "no such"}', encoding="utf-8")

    with pytest.raises(InputError, match=r"config\.json says nothing that is known"):
        trained(tmp_path, WHOLE, tmp_path / "out")
