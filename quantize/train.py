"""Examples to weights: next-token loss with most of its weight on the answer."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random

import torch
from msgspec import Struct
from msgspec.structs import replace
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

from models.contracts.release import Prompt
from models.contracts.task import Task
from quantize.event_types import EventType
from quantize.network import Llama, Shape
from quantize.noise import draw
from quantize.vocabulary import Encoded, encode, ids, twins
from quantize.warm_start import warm_start

_UNSEEN, _EVENT, _LABEL, _REST = range(-1, 3)  # which loss a position belongs to


class Plan(Struct, frozen=True):
    """How long and how hard; steps and not minutes, so that a run can be repeated."""

    epochs: int = 16  # each with freshly drawn values
    warm_epochs: int = 1  # of examples for the bag of words that it starts as
    seed: int = 1
    batch_tokens: int = 2_048
    peak_rate: float = 1.5e-3
    warm_up: float = 0.03
    weight_decay: float = 0.1
    dropout: float = 0.15
    max_event_tokens: int = 448  # the serving context is 640: event, answer and prompt
    short_event_tokens: int = 96  # what most events are cut to: a core does about 4,000 tokens a second
    long_share: float = 0.15  # of the events that keep `max_event_tokens`
    event_share: float = 0.2  # weight of an event's tokens against its label's 1
    event_sample: float = 0.1  # of an event's tokens that are predicted at all: the output layer is a fifth of the work
    field_share: float = 1.0
    guess_share: float = 0.2  # of the guesses at every position, see `_losses`
    pointer_share: float = 1.0  # see `_pointer_loss`
    smoothing: float = 0.05  # on the label: annotators differ at the borders
    taught_share: float = 0.5  # of the label's target that is the second opinion on its template


class Progress(Struct, frozen=True):
    step: int
    steps: int
    event_loss: float
    label_loss: float
    field_loss: float
    guess_loss: float
    pointer_loss: float


def train(
    types: Sequence[EventType],
    task: Task,
    prompt: Prompt,
    tokenizer: Tokenizer,
    shape: Shape,
    *,
    taught: Sequence[Sequence[float]],
    plan: Plan,
    report: Callable[[Progress], None],
    state: Path,
) -> Llama:
    """Train from a bag of words on; the same arguments on the same machine give the same weights.

    `taught` is the second opinion on every template of `types`. `report` is told about every step. After every epoch
    `state` is written; a run that finds it goes on from there.
    """
    torch.manual_seed(plan.seed)
    network = Llama(shape, plan.dropout)
    guesses = torch.nn.Linear(shape.width, len(task.labels), bias=False)
    optimiser = _optimiser([*network.parameters(), *guesses.parameters()], plan)
    label_ids = [ids(tokenizer, f" {name}")[0] for name in task.label_names]
    done = 0
    if state.is_file():
        kept = torch.load(state, weights_only=True)
        network.load_state_dict(kept["network"])
        guesses.load_state_dict(kept["guesses"])
        optimiser.load_state_dict(kept["optimiser"])
        done = kept["epochs"]
    else:
        drawn = range(plan.warm_epochs)
        ready = [example for epoch in drawn for example in draw(types, task, seed=plan.seed, number=-1 - epoch)]
        warm_start(
            network,
            guesses,
            [encode(tokenizer, task, prompt, example, plan.short_event_tokens) for example in ready],
            label_ids,
            twins(tokenizer),
        )
    step, steps = 0, 0
    for epoch in range(plan.epochs):
        # Seeded anew, so that an interrupted run ends with the same weights as one that was not.
        chance = Random(f"{plan.seed}/{epoch}")  # noqa: S311 - wanted: the same for the same seed
        torch.manual_seed(1_000 * plan.seed + epoch)
        encoded = [
            replace(encode(tokenizer, task, prompt, example, _cut(plan, chance)), taught=opinion)
            for example, opinion in zip(draw(types, task, seed=plan.seed, number=epoch), taught, strict=True)
        ]
        batches = list(_batches(encoded, plan.batch_tokens, chance))
        # Lengths differ a little between epochs: the schedule follows this epoch's estimate of the whole.
        steps = step + len(batches) * (plan.epochs - epoch)
        if epoch < done:
            step += len(batches)
            continue
        for batch in batches:
            rate = _rate(step / steps, plan)
            for group in optimiser.param_groups:
                group["lr"] = rate
            losses = _losses(network, guesses, batch, label_ids, plan)
            shares = (plan.event_share, 1.0, plan.field_share, plan.guess_share, plan.pointer_share)
            optimiser.zero_grad(set_to_none=True)
            torch.stack([share * loss for share, loss in zip(shares, losses, strict=True)]).sum().backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            step += 1
            report(Progress(step, steps, *(loss.item() for loss in losses)))
        parts = {"network": network.state_dict(), "guesses": guesses.state_dict(), "optimiser": optimiser.state_dict()}
        keep_state({**parts, "epochs": epoch + 1}, state)
    network.eval()
    return network


def keep_state(state: dict[str, object], path: Path) -> None:
    """Write the state so that it is there whole, or the one before it."""
    unfinished = path.with_suffix(".unfinished")
    torch.save(state, unfinished)
    unfinished.replace(path)


def _cut(plan: Plan, chance: Random) -> int:
    return plan.max_event_tokens if chance.random() < plan.long_share else plan.short_event_tokens


def _optimiser(weights: list[torch.nn.Parameter], plan: Plan) -> torch.optim.Optimizer:
    matrices = [weight for weight in weights if weight.ndim > 1]
    norms = [weight for weight in weights if weight.ndim == 1]
    groups = [{"params": matrices, "weight_decay": plan.weight_decay}, {"params": norms, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=plan.peak_rate, betas=(0.9, 0.98), fused=True)


def _rate(done: float, plan: Plan) -> float:
    if done < plan.warm_up:
        return plan.peak_rate * (done / plan.warm_up + 0.01)
    return plan.peak_rate * 0.5 * (1 + math.cos(math.pi * (done - plan.warm_up) / (1 - plan.warm_up)))


def _batches(encoded: list[Encoded], batch_tokens: int, chance: Random) -> Iterator[list[Encoded]]:
    """Yield batches of like length: sorted with a little noise, cut at the token budget, then shuffled."""
    order = sorted(encoded, key=lambda one: len(one.tokens) * chance.uniform(0.9, 1.1))
    batches: list[list[Encoded]] = [[]]
    for one in order:
        longest = max([len(one.tokens), *(len(other.tokens) for other in batches[-1])])
        if longest * (len(batches[-1]) + 1) > batch_tokens and batches[-1]:
            batches.append([])
        batches[-1].append(one)
    chance.shuffle(batches)
    yield from batches


def _losses(
    network: Llama, guesses: torch.nn.Linear, batch: list[Encoded], label_ids: list[int], plan: Plan
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the mean loss over event tokens, labels, field tokens, guesses, and pointers.

    A guess is the label read off an event's position halfway up, by a layer that is not kept. One label behind a
    hundred tokens teaches too little; guesses teach every position what of it matters.
    """
    length = max(len(one.tokens) for one in batch)
    tokens = torch.zeros((len(batch), length), dtype=torch.long)
    part = torch.full((len(batch), length - 1), _UNSEEN, dtype=torch.long)
    inside = torch.zeros((len(batch), length - 1), dtype=torch.bool)
    sampled = torch.rand(part.shape) < plan.event_sample
    for row, one in enumerate(batch):
        tokens[row, : len(one.tokens)] = torch.tensor(one.tokens)
        answer = len(one.event)
        inside[row, :answer] = True
        part[row, : answer - 1] = torch.where(sampled[row, : answer - 1], _EVENT, _UNSEEN)
        part[row, answer - 1] = _LABEL
        part[row, answer : len(one.tokens) - 1] = _REST
    (hidden, halfway), following = network.both(tokens[:, :-1]), tokens[:, 1:]
    event, rest = (
        functional.cross_entropy(network.logits(hidden[part == kind]), following[part == kind])
        for kind in (_EVENT, _REST)
    )
    kinds = torch.tensor([label_ids.index(one.label) for one in batch])
    smooth = torch.full((len(batch), len(label_ids)), plan.smoothing / len(label_ids))
    smooth[torch.arange(len(batch)), kinds] += 1 - plan.smoothing
    wanted = torch.lerp(smooth, torch.tensor([one.taught for one in batch]), plan.taught_share)
    # Spread over the labels and nothing else: what they do not cover must stay a sign of a strange text.
    said = network.logits(hidden[part == _LABEL])
    targets = torch.zeros_like(said)
    targets[:, label_ids] = wanted
    label = functional.cross_entropy(said, targets)

    guessed = guesses(functional.rms_norm(halfway[inside], (network.shape.width,)))
    guess = functional.cross_entropy(guessed, wanted.repeat_interleave(inside.sum(dim=1), dim=0))
    return event, label, rest, guess, _pointer_loss(network, halfway, batch)


def _pointer_loss(network: Llama, state: Tensor, batch: list[Encoded]) -> Tensor:
    """Return how far two heads of the last layer are from looking at what is to be copied.

    One head finds where a value begins, one how it goes on.
    """
    losses = []
    for head, first in enumerate((True, False)):
        asked = [(row, one) for row, encoded in enumerate(batch) for one in encoded.pointers if one.first == first]
        if asked:
            rows = torch.tensor([row for row, _ in asked])
            seen = network.pointed(state, head, rows, torch.tensor([one.asked_at for _, one in asked]))
            wanted = torch.zeros_like(seen, dtype=torch.bool)
            for line, (_, one) in enumerate(asked):
                wanted[line, one.found_at] = True
            losses.append(-seen.masked_fill(~wanted, -torch.inf).logsumexp(dim=-1).mean())
    return torch.stack(losses).mean() if losses else torch.zeros(())
