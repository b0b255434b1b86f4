"""Fine-tuning an encoder end to end in small: a few steps, the checkpoint, its GGUF, and a gateway's answers."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize
from msgspec.structs import replace
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertModel

from models.contracts.errors import InputError
from models.contracts.release import Prompt, Release
from models.fields import ABSENT
from models.heads import outputs_of
from models.llama import Model
from quantize import round_trip
from quantize.ask import ask
from quantize.checkpoint import Checkpoint, checkpoint_of
from quantize.convert import convert
from quantize.encoder_training import read_roles, train_encoder
from quantize.examples import Examples, HeldOut
from quantize.expand import Example
from quantize.progress import Progress
from quantize.recipe import Base, TrainEncoder, TrainNothing
from quantize.start import base_folder
from quantize.steps import Steps
from tests.fakes import measured
from tests.fakes.tiny_models import TASK as SMALL

# With more than ten outputs: that they stay in order is then more than luck.
CHOICES = ("T1110", "T1190", *(f"T1{number}" for number in range(500, 508)))
TASK = replace(
    SMALL, fields=tuple(replace(field, choices=CHOICES) if field.choices else field for field in SMALL.fields)
)
MARKS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
FOREIGN = ["Melt the butter slowly and stir in the flour.", "The moon rose over the hill, and nobody spoke."]
PLAN = TrainEncoder(
    epochs=8, rounded_epochs=2, rate=3e-3, head_rate=1e-2, batch_tokens=256, max_tokens=64, foreign_share=0.02
)
WORDED = replace(PLAN, wording="words-1", train_embeddings=True, layers=1)
plans = pytest.mark.parametrize("plan", [PLAN, WORDED], ids=["as it is", "worded, one layer, embeddings too"])


def event(label: str, chance: Random) -> Example:
    user, address = chance.choice(("root", "ana", "bo")), f"10.0.{chance.randrange(9)}.{chance.randrange(99)}"
    if label == "benign":
        text = f"cron: session opened for user {user} by uid 0 at {address}, nothing else"
        return Example(text, label, "cron", {})
    if label == "suspicious":
        fields = {"source": (address,), "technique": ("T1110",), "observable": (user,)}
        return Example(f"sshd: Failed password for {user} from {address} port 22", label, "sshd", fields)
    return Example(f"web: GET /etc/passwd from {address} status=200", label, "web", {"source": (address,)})


def drawn(number: int, count: int = 150) -> list[Example]:
    chance = Random(number)
    return [event(TASK.label_names[at % 3], chance) for at in range(count)]


TEST = drawn(1_000, 30)
BODIES = [one.body for one in TEST]
HELD = HeldOut(TEST, np.arange(len(TEST)))
EXAMPLES = Examples(draw=drawn, calibration=HELD, test=HELD, foreign=FOREIGN, foreign_test=[], digest="0")

pytestmark = pytest.mark.timeout(600)  # the converter starts torch anew: seconds, or minutes on a starved machine


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT with random weights and a WordPiece vocabulary of its own, as `transformers` writes one."""
    folder = tmp_path_factory.mktemp("base")
    tokenizer = Tokenizer(models.WordPiece(unk_token=MARKS[1]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=list(MARKS), show_progress=False)
    tokenizer.train_from_iterator([*BODIES, *FOREIGN, *(one.body for one in drawn(0)), *"0123456789"], trainer)
    start, end = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", start), ("[SEP]", end)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    names = ("unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
    marks = dict(zip(names, ("[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"), strict=True))
    about = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, **marks}
    (folder / "tokenizer_config.json").write_text(json.dumps(about), encoding="utf-8")
    tokens = sorted(tokenizer.get_vocab().items(), key=lambda pair: pair[1])
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token, _ in tokens), encoding="utf-8")
    torch.manual_seed(5)
    config = BertConfig(
        vocab_size=len(tokens),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
    )
    BertModel(config).save_pretrained(folder)
    return folder


def trained(
    base: Path,
    plan: TrainEncoder,
    out: Path,
    tick: Callable[[int, int], None] = lambda _done, _all: None,
    seed: int = 1,
) -> Path:
    out.mkdir(exist_ok=True)
    train_encoder(EXAMPLES, TASK, base, plan, seed=seed, out=out, tick=tick)
    return out


@pytest.fixture(scope="module")
def whole(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[TrainEncoder, Path]:
    """What comes of each plan where nothing interrupts it."""
    return {plan: trained(base, plan, tmp_path_factory.mktemp("whole")) for plan in (PLAN, WORDED)}


@pytest.fixture(scope="module")
def ggufs(whole: dict[TrainEncoder, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[TrainEncoder, Path]:
    folder = tmp_path_factory.mktemp("ggufs")
    for number, checkpoint in enumerate(whole.values()):
        convert(checkpoint, folder / f"{number}.gguf")
    return {plan: folder / f"{number}.gguf" for number, plan in enumerate(whole)}


def weights_of(folder: Path) -> dict[str, Any]:
    return load_file(folder / "model.safetensors")


def equal(one: Path, other: Path) -> bool:
    mine, theirs = weights_of(one), weights_of(other)
    same = mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)
    return same and read_roles(one) == read_roles(other)


def interrupted_after(share: float) -> Callable[[int, int], None]:
    def tick(done: int, steps: int) -> None:
        if done > share * steps:
            raise KeyboardInterrupt

    return tick


@plans
@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_what_was_interrupted_ends_with_the_same_weights(
    base: Path, whole: dict[TrainEncoder, Path], tmp_path: Path, plan: TrainEncoder, share: float
) -> None:
    said: list[tuple[int, int]] = []
    with pytest.raises(KeyboardInterrupt):
        trained(base, plan, tmp_path, interrupted_after(share))
    trained(base, plan, tmp_path, lambda done, steps: said.append((done, steps)))

    assert equal(whole[plan], tmp_path)
    assert said[-1][0] == said[-1][1]
    assert (said[0][0] == 1) == (share == 0.05)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in whole[plan].iterdir()}


def test_another_seed_gives_other_weights(base: Path, whole: dict[TrainEncoder, Path], tmp_path: Path) -> None:
    assert not equal(whole[PLAN], trained(base, PLAN, tmp_path, seed=2))


@plans
def test_the_gguf_says_what_the_checkpoint_says(
    whole: dict[TrainEncoder, Path], ggufs: dict[TrainEncoder, Path], plan: TrainEncoder
) -> None:
    marked = [f"{body} [SEP] [MASK] {body}" for body in BODIES[:3]]
    outcome = round_trip.check(whole[plan], ggufs[plan], [*BODIES, *marked], wording=plan.wording)

    assert outcome.tokenised_alike == outcome.texts == len(BODIES) + len(marked)
    assert outcome.most_apart == pytest.approx(0.0, abs=0.05)
    with Model(ggufs[plan]) as model:
        assert model.labels == outputs_of(TASK)


@plans
def test_a_gateway_asks_as_it_was_trained(
    whole: dict[TrainEncoder, Path], ggufs: dict[TrainEncoder, Path], plan: TrainEncoder
) -> None:
    prompt = Prompt(kind="encoder", wording=plan.wording, max_tokens=2 * plan.max_tokens)
    release = Release(name="small", number=1, task=TASK, prompt=prompt, roles=read_roles(whole[plan]))
    answers = ask(ggufs[plan], release, BODIES, fields=True)
    attacks = [(found, one.fields) for found, one in zip(answers.fields, TEST, strict=True) if one.label != "benign"]

    assert [TASK.label_names[at] for at in answers.chosen] == [one.label for one in TEST]
    assert answers.masses.min() > 0.5
    assert all(found.get("technique") == wanted.get("technique") for found, wanted in attacks)
    assert np.mean([found.get("source") == wanted["source"] for found, wanted in attacks]) > 0.5
    assert all(found == {} for found, one in zip(answers.fields, TEST, strict=True) if one.label == "benign")


def test_what_was_trained_elsewhere_is_taken_as_it_is(whole: dict[TrainEncoder, Path], tmp_path: Path) -> None:
    plain = Base(kind="encoder", path=str(whole[PLAN]))
    folder = base_folder(plain, tmp_path, tmp_path / "bases", finished=True)
    made = checkpoint_of(
        measured.recipe(base=plain, training=TrainNothing()), TASK, EXAMPLES, root=tmp_path, base=folder,
        steps=Steps(tmp_path / "steps", lambda _: None), drawn=[], progress=Progress(),
    )  # fmt: skip

    assert made == Checkpoint(made.gguf, Prompt(kind="encoder"))
    assert {path.name for path in made.gguf.parent.iterdir()} == {"f16.gguf", "round_trip.json", "step.json"}


def test_a_gguf_of_other_weights_or_another_vocabulary_is_refused(
    base: Path, whole: dict[TrainEncoder, Path], ggufs: dict[TrainEncoder, Path], tmp_path: Path
) -> None:
    gguf = ggufs[PLAN]
    other = trained(base, replace(PLAN, epochs=1), tmp_path / "other")
    with pytest.raises(InputError, match=rf"{gguf}: its logits differ from {other}'s by up to "):
        round_trip.check(other, gguf, BODIES)

    cased = Path(shutil.copytree(whole[PLAN], tmp_path / "cased"))
    tokenizer = Tokenizer.from_file(str(cased / "tokenizer.json"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.save(str(cased / "tokenizer.json"))
    with pytest.raises(InputError, match=rf"of {len(BODIES)} texts \d+ are tokenised otherwise than by {cased}"):
        round_trip.check(cased, gguf, BODIES)


def test_weights_that_are_no_numbers_are_refused(
    whole: dict[TrainEncoder, Path], ggufs: dict[TrainEncoder, Path], tmp_path: Path
) -> None:
    broken = Path(shutil.copytree(whole[PLAN], tmp_path / "broken"))
    weights = weights_of(broken)
    weights["classifier.bias"][:] = torch.nan
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(InputError, match="its logits differ"):
        round_trip.check(broken, ggufs[PLAN], BODIES)


def test_what_llama_cpp_does_not_convert_is_refused_with_its_words_and_leaves_no_file(
    whole: dict[TrainEncoder, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(whole[PLAN], tmp_path / "folder"))
    config = json.loads((folder / "config.json").read_bytes())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["NoSuchModel"]}), encoding="utf-8")

    with pytest.raises(InputError, match=f"{folder}: llama.cpp does not convert it: .*NoSuchModel"):
        convert(folder, tmp_path / "encoder.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_what_is_learnt_by_four_bits_is_written_in_four_bits_without_loss(whole: dict[TrainEncoder, Path]) -> None:
    q4_0 = GGMLQuantizationType.Q4_0
    for plan, folder in whole.items():
        matrices = {
            name: weight.numpy()
            for name, weight in weights_of(folder).items()
            if weight.ndim == 2 and not name.startswith(("bert.embeddings.position", "bert.embeddings.token_type"))
        }
        assert len(matrices) == 6 * (plan.layers or 2) + 2  # of each layer, the token vectors, the head
        for matrix in matrices.values():
            np.testing.assert_array_equal(dequantize(quantize(matrix, q4_0), q4_0), matrix)


def test_embeddings_stay_as_they_were_unless_they_are_to_be_trained(base: Path, tmp_path: Path) -> None:
    name, plain = "embeddings.word_embeddings.weight", replace(PLAN, epochs=1, rounded_epochs=0)
    before = load_file(base / "model.safetensors")[name]
    kept, moved = (
        weights_of(trained(base, replace(plain, train_embeddings=train), tmp_path / str(train)))[f"bert.{name}"]
        for train in (False, True)
    )

    assert torch.equal(kept, before)
    assert not torch.equal(moved, before)


def test_frozen_layers_and_what_lies_below_them_stay_as_they_were(base: Path, tmp_path: Path) -> None:
    before = load_file(base / "model.safetensors")
    after = weights_of(trained(base, replace(PLAN, epochs=1, rounded_epochs=0, frozen_layers=1), tmp_path))
    moved = {name for name, weight in before.items() if not torch.equal(after.get(f"bert.{name}", weight), weight)}

    assert {name.partition("attention")[0] for name in moved} >= {"encoder.layer.1."}
    assert not [name for name in moved if not name.startswith("encoder.layer.1.")]


def test_a_plan_that_freezes_every_layer_is_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"2 layers, of which `training\.frozen_layers` leaves none to train"):
        trained(base, replace(PLAN, frozen_layers=2), tmp_path / "out")


def test_what_is_computed_with_16_bits_is_learnt_all_the_same_and_kept_with_32(base: Path, tmp_path: Path) -> None:
    trained(base, replace(PLAN, bfloat16=True), tmp_path)
    convert(tmp_path, tmp_path / "small.gguf")
    release = Release(name="small", number=1, task=TASK, prompt=Prompt(kind="encoder"))

    assert {weight.dtype for weight in weights_of(tmp_path).values()} == {torch.float32}
    answers = ask(tmp_path / "small.gguf", release, BODIES)
    assert [TASK.label_names[at] for at in answers.chosen] == [one.label for one in TEST]


def test_the_checkpoint_names_its_outputs_and_its_layers(whole: dict[TrainEncoder, Path]) -> None:
    config = json.loads((whole[WORDED] / "config.json").read_bytes())

    assert tuple(config["id2label"].values()) == outputs_of(TASK)
    assert config["num_hidden_layers"] == 1
    assert not [name for name in weights_of(whole[WORDED]) if ".layer.1." in name]


def test_the_layer_of_the_roles_is_one_row_per_copied_field(whole: dict[TrainEncoder, Path], tmp_path: Path) -> None:
    roles = read_roles(whole[PLAN])

    assert roles is not None
    assert roles.names == (ABSENT, "source", "observable")
    assert len(roles.weights) == 4 * 3 * (32 + 1)
    assert read_roles(tmp_path) is None


def test_a_task_without_fields_has_no_roles(base: Path, tmp_path: Path) -> None:
    task = replace(TASK, fields=(), fields_for=())
    plain = [replace(one, fields={}) for one in drawn(0, 12)]
    examples = replace(EXAMPLES, draw=lambda _: plain)
    train_encoder(examples, task, base, replace(PLAN, epochs=1), seed=1, out=tmp_path, tick=lambda _done, _all: None)

    assert read_roles(tmp_path) is None


def test_a_base_that_is_no_bert_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}', encoding="utf-8")

    with pytest.raises(InputError, match="architecture `gpt2`; an encoder of the BERT family wanted"):
        trained(tmp_path, PLAN, tmp_path / "out")
