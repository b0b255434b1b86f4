"""Examples to a fine-tuned causal model: the answer behind the model's own chat template, whole or by adapters.

The loss is on the answer alone, and the answer is what a decoder reads: a label, and behind it the fields in the form
of `models/fields.py`. Adapters (Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021) are merged into
the weights before the checkpoint is written, so that one file is all there is.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import torch
from msgspec import Struct
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoTokenizer

from models.contracts.errors import InputError, UntrustedError
from models.contracts.task import Task
from models.fields import transcript_pieces
from models.prompt import chat_text
from quantize.examples import Examples
from quantize.expand import Example
from quantize.pretrained import read_decoder
from quantize.recipe import TrainDecoder
from quantize.train import keep_state

_STATE = "state.pt"
_IGNORED = -100
_LEAST_ROOM = 16  # tokens for an event and its answer; less would teach nothing
_ADAPTED = "all-linear"


class _Encoded(Struct, frozen=True):
    tokens: list[int]
    answer: int  # how many of them, at the end


def train_decoder(
    examples: Examples,
    task: Task,
    base: Path,
    plan: TrainDecoder,
    *,
    seed: int,
    out: Path,
    tick: Callable[[int, int], None],
) -> None:
    """Train and write a Hugging Face checkpoint into `out`; an interrupted run goes on after its last epoch.

    Raises:
        InputError: the base cannot be read, has no chat template to ask it by, or is asked in more tokens than the plan
            allows.
    """
    torch.manual_seed(seed)
    network = read_decoder(base).float()
    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    around = _around(tokenizer, task, base)
    asked_in = sum(map(len, around))
    if asked_in + _LEAST_ROOM > plan.max_tokens:
        raise InputError(
            f"{base}: `training.max_tokens` is {plan.max_tokens}, and what stands around an event takes {asked_in} of "
            "them; set it higher by as many as an event and its answer may have"
        )
    if plan.adapters:
        how = LoraConfig(r=plan.adapters, lora_alpha=2 * plan.adapters, target_modules=_ADAPTED, task_type="CAUSAL_LM")
        network = get_peft_model(network, how)
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=plan.rate, weight_decay=0.0)
    done = 0
    if (out / _STATE).is_file():
        state = torch.load(out / _STATE, weights_only=True)
        for weight, kept in zip(weights, state["weights"], strict=True):
            weight.data.copy_(kept)
        optimiser.load_state_dict(state["optimiser"])
        done = state["epochs"]
    step = 0
    for epoch in range(plan.epochs):
        chance = Random(f"{seed}/{epoch}")  # noqa: S311 - wanted: the same for the same seed
        torch.manual_seed(1_000 * seed + epoch)
        encoded = [_encoded(tokenizer, task, around, example, plan.max_tokens) for example in examples.draw(epoch)]
        batches = list(_batches(encoded, plan.batch_tokens, chance))
        steps = step + len(batches) * (plan.epochs - epoch)
        if epoch < done:
            step += len(batches)
            continue
        network.train()
        for batch in batches:
            for group in optimiser.param_groups:
                group["lr"] = plan.rate * (1 - step / steps)
            optimiser.zero_grad(set_to_none=True)
            loss = _loss(network, batch)
            loss.backward()
            nn.utils.clip_grad_norm_(weights, 1.0)
            optimiser.step()
            step += 1
            tick(step, steps)
        kept = [weight.detach() for weight in weights]
        keep_state({"weights": kept, "optimiser": optimiser.state_dict(), "epochs": epoch + 1}, out / _STATE)
    merged = network.merge_and_unload() if plan.adapters else network
    merged.save_pretrained(out, safe_serialization=True)
    tokenizer.save_pretrained(out)
    (out / _STATE).unlink()


def _around(tokenizer: Any, task: Task, base: Path) -> tuple[list[int], list[int]]:
    """Return the tokens before and behind an event, as a gateway puts them there."""
    start, end = tokenizer.bos_token or "", tokenizer.eos_token or ""
    try:
        before, after = chat_text(task, tokenizer.chat_template, start, end)
    except UntrustedError as error:
        raise InputError(f"{base}: {error}") from error
    return tuple(tokenizer.encode(text, add_special_tokens=False) for text in (before.removesuffix(" "), after))


def _encoded(tokenizer: Any, task: Task, around: tuple[list[int], list[int]], example: Example, most: int) -> _Encoded:
    """Return the prompt with the event, and the answer; of an event that is too long the start stays."""
    pieces = transcript_pieces(task, example.label, example.fields)
    answer = [token for piece in pieces for token in tokenizer.encode(piece, add_special_tokens=False)]
    before, behind = around
    room = max(1, most - len(before) - len(behind) - len(answer))
    # What looks like a mark of the template is an event's text, and no mark.
    event = tokenizer.encode(f" {example.body}", add_special_tokens=False, split_special_tokens=True)[:room]
    return _Encoded([*before, *event, *behind, *answer], len(answer))


def _batches(encoded: Sequence[_Encoded], batch_tokens: int, chance: Random) -> Iterator[list[_Encoded]]:
    """Yield batches of like length within the token budget, in a random order."""
    batches: list[list[_Encoded]] = [[]]
    for one in sorted(encoded, key=lambda one: len(one.tokens) * chance.uniform(0.9, 1.1)):
        if batches[-1] and len(one.tokens) * (len(batches[-1]) + 1) > batch_tokens:
            batches.append([])
        batches[-1].append(one)
    chance.shuffle(batches)
    yield from batches


def _loss(network: Any, batch: Sequence[_Encoded]) -> Tensor:
    tokens = nn.utils.rnn.pad_sequence([torch.tensor(one.tokens) for one in batch], batch_first=True)
    wanted = torch.full_like(tokens, _IGNORED)
    mask = torch.zeros_like(tokens)
    for row, one in enumerate(batch):
        mask[row, : len(one.tokens)] = 1
        wanted[row, len(one.tokens) - one.answer : len(one.tokens)] = torch.tensor(one.tokens[-one.answer :])
    logits = network(input_ids=tokens, attention_mask=mask).logits
    return functional.cross_entropy(logits[:, :-1].flatten(0, 1), wanted[:, 1:].flatten(), ignore_index=_IGNORED)
