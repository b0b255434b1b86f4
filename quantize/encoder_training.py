"""Examples to a fine-tuned encoder: one pass tells the label, the choices of fields, and every token's role.

The label is a linear layer over the mean of all tokens' vectors: llama.cpp drops BERT's own pooler (a dense layer and
tanh over the first token), so a checkpoint that used it would answer something else as a GGUF.
"""

import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from random import Random

import numpy as np
import torch
from msgspec import Struct
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from models.contracts.errors import InputError
from models.contracts.release import Roles
from models.contracts.task import Task
from models.fields import ABSENT
from models.heads import outputs_of
from models.roles import candidates, covered, role_names
from models.wording import words_of
from quantize.examples import Examples
from quantize.expand import Example
from quantize.four_bits import as_four_bits, matrices, round_all
from quantize.pretrained import read_encoder
from quantize.recipe import TrainEncoder
from quantize.train import keep_state

_WARM_UP = 0.06  # of all steps
_DECAY = 0.01
_ROLE_SHARE, _CHOICE_SHARE = 0.5, 0.3
_MOST_TEXTS = 32  # in a batch
_NO_ROLE_WEIGHT = 0.3  # nine of ten candidates are nothing
_ROLES_FILE = "roles.json"
_STATE = "state.pt"


class _Encoded(Struct, frozen=True):
    tokens: list[int]
    label: int  # an output among labels and none
    choices: tuple[int, ...]  # per choice field its choice, or -1 where there is nothing to learn
    ranges: list[tuple[int, int]]  # of the candidates' tokens
    roles: list[int]


class Network(nn.Module):  # type: ignore[misc]  # torch is not there where types are checked
    """An encoder with a head over the mean, and a layer over the tokens."""

    def __init__(self, base: Path, task: Task, plan: TrainEncoder) -> None:
        """Read the checkpoint.

        Raises:
            InputError: it is none that this can be done with.
        """
        super().__init__()
        self.encoder = read_encoder(base)
        if plan.layers is not None:
            self.encoder.encoder.layer = self.encoder.encoder.layer[: plan.layers]
            self.encoder.config.num_hidden_layers = len(self.encoder.encoder.layer)
        layers = self.encoder.encoder.layer
        if plan.frozen_layers >= len(layers):
            raise InputError(
                f"{base}: {len(layers)} layers, of which `training.frozen_layers` leaves none to train; fewer than "
                f"{len(layers)} wanted"
            )
        self.frozen = [self.encoder.embeddings, *layers[: plan.frozen_layers]] if plan.frozen_layers else []
        for part in self.frozen:
            part.requires_grad_(requires_grad=False)
        self.bfloat16 = plan.bfloat16
        width = self.encoder.config.hidden_size
        self.outputs = outputs_of(task)
        self.roles_of = role_names(task.fields)
        self.head = nn.Linear(width, len(self.outputs))
        self.roles = nn.Linear(width, len(self.roles_of))
        self.dropout = nn.Dropout(plan.dropout)

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the head's logits, a row per text, and the vectors of all tokens."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            vectors = self.encoder(input_ids=tokens, attention_mask=mask).last_hidden_state
        vectors = vectors.float()
        mean = (vectors * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return self.head(self.dropout(mean)), vectors

    def train(self, mode: bool = True) -> "Network":  # noqa: FBT001, FBT002 - torch's
        """Turn dropout on or off; what is frozen has none: it would be noise that nothing learns to live with."""
        super().train(mode)
        for part in self.frozen:
            part.eval()
        return self


def train_encoder(
    examples: Examples,
    task: Task,
    base: Path,
    plan: TrainEncoder,
    *,
    seed: int,
    out: Path,
    tick: Callable[[int, int], None],
) -> None:
    """Train and write a Hugging Face checkpoint and the layer of the roles into `out`.

    The same arguments on the same machine give the same weights. After every epoch the state is written; what finds
    one goes on from there.
    """
    torch.manual_seed(seed)
    network = Network(base, task, plan)
    tokenizer = _tokenizer(base)
    if not plan.train_embeddings:
        network.encoder.embeddings.word_embeddings.weight.requires_grad_(False)
    frozen = [weight for weight in matrices(network) if not weight.requires_grad]
    # The layer of the roles is kept in the release, whole.
    weights = [w for w in matrices(network) if w.requires_grad and w is not network.roles.weight]
    optimiser = _optimiser(network, plan)
    done = 0
    if (out / _STATE).is_file():
        state = torch.load(out / _STATE, weights_only=True)
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        done = state["epochs"]
    step = 0
    for epoch in range(plan.epochs):
        chance = Random(f"{seed}/{epoch}")  # noqa: S311 - wanted: the same for the same seed
        torch.manual_seed(1_000 * seed + epoch)  # dropout is the same whether the run was interrupted or not
        drawn = [_encoded(example, task, network, tokenizer, plan) for example in examples.draw(epoch)]
        drawn += _foreign(examples.foreign, len(drawn), network, tokenizer, plan=plan, chance=chance)
        batches = list(_batches(drawn, plan.batch_tokens, chance))
        steps = step + len(batches) * (plan.epochs - epoch)
        if epoch < done:
            step += len(batches)
            continue
        network.train()
        four_bits = epoch >= plan.epochs - plan.rounded_epochs
        if four_bits and not plan.train_embeddings:
            round_all(frozen)
        for batch in batches:
            factor = _schedule(step / steps)
            for group in optimiser.param_groups:
                group["lr"] = group["peak"] * factor
            optimiser.zero_grad(set_to_none=True)
            with as_four_bits(weights) if four_bits else nullcontext():
                loss = _loss(network, batch, task, plan)
                loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            step += 1
            tick(step, steps)
        keep_state(
            {"network": network.state_dict(), "optimiser": optimiser.state_dict(), "epochs": epoch + 1}, out / _STATE
        )
    network.eval()
    if plan.rounded_epochs:
        round_all([*weights, *frozen])
    save_checkpoint(network, base, out)
    (out / _STATE).unlink(missing_ok=True)


def save_checkpoint(network: Network, base: Path, out: Path) -> None:
    """Write what llama.cpp's converter and `transformers` read, and the layer of the roles beside it."""
    config = json.loads((base / "config.json").read_bytes()) | {
        "architectures": ["BertForSequenceClassification"],
        "num_hidden_layers": network.encoder.config.num_hidden_layers,
        "classifier_pooling": "mean",
        "id2label": {str(index): name for index, name in enumerate(network.outputs)},
        "label2id": {name: index for index, name in enumerate(network.outputs)},
    }
    (out / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    tensors = {f"bert.{name}": weight.contiguous() for name, weight in network.encoder.state_dict().items()}
    tensors |= {"classifier.weight": network.head.weight.detach(), "classifier.bias": network.head.bias.detach()}
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        if (base / name).is_file():
            shutil.copy2(base / name, out / name)
    weights = torch.cat([network.roles.weight, network.roles.bias[:, None]], dim=1).detach().numpy()
    roles = {"names": network.roles_of, "weights": weights.tolist()}
    (out / _ROLES_FILE).write_text(json.dumps(roles), encoding="utf-8")


def read_roles(checkpoint: Path) -> Roles | None:
    """Return the layer that training left beside a checkpoint, if it did and the task copies any field."""
    path = checkpoint / _ROLES_FILE
    if not path.is_file():
        return None
    found = json.loads(path.read_bytes())
    if len(found["names"]) < 2:
        return None
    return Roles(names=tuple(found["names"]), weights=np.array(found["weights"], "<f4").tobytes())


def _tokenizer(base: Path) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    except Exception as error:  # the library raises nothing narrower
        raise InputError(f"{base}: no tokenizer.json that can be read: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True  # a mark in an event is text, as it is where it is served
    return tokenizer


def _encoded(example: Example, task: Task, network: Network, tokenizer: Tokenizer, plan: TrainEncoder) -> _Encoded:
    text = example.body
    words = words_of(text, plan.wording)
    encoding = tokenizer.encode(words.text)
    tokens, offsets = _cut(encoding.ids, plan.max_tokens), encoding.offsets
    choices = [field for field in task.fields if field.kind == "choice"]
    has_fields = example.label in task.fields_for
    chosen = tuple(
        (ABSENT, *field.choices).index(example.fields.get(field.name, (ABSENT,))[0]) if has_fields else -1
        for field in choices
    )
    spans, ranges, roles = [], list[tuple[int, int]](), list[int]()
    if example.fields and len(network.roles_of) > 1:
        characters = words.origins()
        kept = len(tokens) - 2
        origins = [(characters[begin][0], characters[end - 1][1]) for begin, end in offsets[1 : 1 + kept]]
        spans = candidates(text)
        # A value of two roles has the first: the reader gives it once.
        of_value = {value: name for name in reversed(network.roles_of[1:]) for value in example.fields.get(name, ())}
        for (begin, end), (first, last) in zip(spans, covered(spans, origins), strict=True):
            if first < last:
                ranges.append((first + 1, last + 1))
                roles.append(network.roles_of.index(of_value.get(text[begin:end], ABSENT)))
    return _Encoded(tokens, task.label_names.index(example.label), chosen, ranges, roles)


def _foreign(
    texts: Sequence[str], count: int, network: Network, tokenizer: Tokenizer, *, plan: TrainEncoder, chance: Random
) -> list[_Encoded]:
    """Return some of the texts that the task is not about."""
    drawn = chance.sample(list(texts), min(len(texts), round(plan.foreign_share * count)))
    none = network.outputs.index(ABSENT)
    worded = (words_of(text, plan.wording).text for text in drawn)
    return [_Encoded(_cut(tokenizer.encode(text).ids, plan.max_tokens), none, (), [], []) for text in worded]


def _cut(tokens: list[int], most: int) -> list[int]:
    return tokens if len(tokens) <= most else [*tokens[: most - 1], tokens[-1]]


def _batches(encoded: list[_Encoded], batch_tokens: int, chance: Random) -> Iterator[list[_Encoded]]:
    """Yield batches of like length: sorted with a little noise, cut at the token budget, then shuffled."""
    order = sorted(encoded, key=lambda one: len(one.tokens) * chance.uniform(0.85, 1.15))
    batches: list[list[_Encoded]] = [[]]
    for one in order:
        longest = max([len(one.tokens), *(len(other.tokens) for other in batches[-1])])
        full = len(batches[-1]) == _MOST_TEXTS or longest * (len(batches[-1]) + 1) > batch_tokens
        if batches[-1] and full:
            batches.append([])
        batches[-1].append(one)
    chance.shuffle(batches)
    yield from batches


def _loss(network: Network, batch: Sequence[_Encoded], task: Task, plan: TrainEncoder) -> Tensor:
    tokens = nn.utils.rnn.pad_sequence([torch.tensor(one.tokens) for one in batch], batch_first=True)
    lengths = torch.tensor([len(one.tokens) for one in batch])
    mask = (torch.arange(tokens.shape[1])[None] < lengths[:, None]).float()
    logits, vectors = network(tokens, mask)
    labels = len(task.label_names) + 1  # and none of them
    wanted = torch.tensor([one.label for one in batch])
    loss = functional.cross_entropy(logits[:, :labels], wanted, label_smoothing=plan.smoothing)
    at = labels
    for index, field in enumerate(field for field in task.fields if field.kind == "choice"):
        width = len(field.choices) + 1
        chosen = torch.tensor([one.choices[index] if one.choices else -1 for one in batch])
        if (chosen >= 0).any():
            mine = functional.cross_entropy(logits[:, at : at + width], chosen, ignore_index=-1)
            loss = loss + _CHOICE_SHARE * mine
        at += width
    spans = [(text, *span) for text, one in enumerate(batch) for span in one.ranges]
    if spans:
        text, first, last = torch.tensor(spans).T
        sums = functional.pad(vectors.cumsum(dim=1), (0, 0, 1, 0))
        means = (sums[text, last] - sums[text, first]) / (last - first)[:, None]
        roles = torch.tensor([role for one in batch for role in one.roles])
        weights = torch.ones(len(network.roles_of))
        weights[0] = _NO_ROLE_WEIGHT
        loss = loss + _ROLE_SHARE * functional.cross_entropy(network.roles(means), roles, weight=weights)
    return loss


def _optimiser(network: Network, plan: TrainEncoder) -> torch.optim.Optimizer:
    body = [(name, weight) for name, weight in network.encoder.named_parameters() if weight.requires_grad]
    heads = [*network.head.parameters(), *network.roles.parameters()]
    groups = [
        {"params": [w for _, w in body if w.ndim > 1], "peak": plan.rate, "weight_decay": _DECAY},
        {"params": [w for _, w in body if w.ndim == 1], "peak": plan.rate, "weight_decay": 0.0},
        {"params": heads, "peak": plan.head_rate, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=plan.rate, fused=True)


def _schedule(done: float) -> float:
    if done < _WARM_UP:
        return (done + 0.001) / _WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (done - _WARM_UP) / (1 - _WARM_UP)))
