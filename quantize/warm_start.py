"""Where training starts: with the circuits that it would otherwise spend most of its time to find.

From random weights, one label behind a hundred tokens teaches a Llama nothing for its first five hundred steps, and
copying needs two layers that learn of each other. Three things are therefore set by hand, and trained on from there:

- A bag of words (the mean of the tokens' embeddings, and one row per label) learns in seconds, and heads that attend
  to everything alike and copy what they see *are* that bag.
- Two heads of the first layer look one and two tokens back (as the first half of an induction head does: Olsson et
  al., "In-context Learning and Induction Heads", 2022), so that a value knows the `src=` in front of it.
- The other layers copy what they attend to, and a word begins with the same embedding with and without its space:
  what remains to be learnt of copying is where to look.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from quantize.network import SPREAD, Layer, Llama, Shape
from quantize.vocabulary import Encoded

_ROUNDS = 4  # more only learn the templates by heart
_RATE = 2e-3
_BATCH = 64
_DROPOUT = 0.3
_INTO_THE_STREAM = 0.1  # what is copied stands beside the token's own embedding, and does not drown it
_BACK = (1, 2)  # tokens that the heads look back, one head each
_PAIRS = 12  # of the rotary pairs, the fastest: they tell neighbours apart
_SHARPNESS = 5.0  # by how much a head's score of its token stands above the next one's
_COMMON = 10.0  # length, in units of SPREAD, of what all embeddings have in common: the heads hold on to it
_ANSWERS = 8.0  # logit of the labels together, where they are asked for


def warm_start(
    network: Llama,
    guesses: nn.Linear,
    encoded: Sequence[Encoded],
    label_ids: Sequence[int],
    twins: Sequence[tuple[int, int]],
) -> Tensor:
    """Train a bag on `encoded` and make `network` and `guesses` begin as it; return its last loss.

    `twins` are tokens that are the same word with a space in front and without.
    """
    shape, embeddings = network.shape, network.token_embd
    looking_back = len(_BACK) * shape.head_width  # the width that the bag leaves to these heads
    with torch.no_grad():
        for spaced, bare in twins:
            embeddings.weight[spaced] = 0.3 * embeddings.weight[spaced] + embeddings.weight[bare]
    rows = nn.Parameter(torch.zeros(len(label_ids), shape.width - looking_back))
    optimiser = torch.optim.Adam([embeddings.weight, rows], lr=_RATE)
    kinds = torch.tensor([list(label_ids).index(one.label) for one in encoded])
    loss = torch.tensor(0.0)
    for _ in range(_ROUNDS):
        for chosen in torch.randperm(len(encoded)).split(_BATCH):
            bags = _bags([encoded[at].event for at in chosen.tolist()], embeddings)[:, looking_back:]
            scores = functional.dropout(bags, _DROPOUT) @ rows.T
            loss = functional.cross_entropy(scores, kinds[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    with torch.no_grad():
        # The first layer normalises, so only the direction matters to the bag; as output rows, long ones shout.
        embeddings.weight *= SPREAD / embeddings.weight.std()
        whole = functional.pad(rows, (looking_back, 0))
        guesses.weight.copy_(whole)
        for layer in network.blk:
            layer.attn_v.weight.copy_(torch.eye(shape.width))
            layer.attn_output.weight.copy_(_INTO_THE_STREAM * torch.eye(shape.width))
        _look_back(network.blk[0], _share_a_direction(embeddings), shape)
        embeddings.weight[list(label_ids)] = whole
        answering = torch.stack([network(torch.tensor([one.event]))[0, -1] for one in encoded[:_BATCH]]).mean(dim=0)
        embeddings.weight[list(label_ids)] += _ANSWERS * answering / answering.square().sum()
    return loss.detach()


def _bags(events: Sequence[list[int]], embeddings: nn.Embedding) -> Tensor:
    """Return the mean of each event's normalised embeddings, itself normalised: what the first layer will see."""
    lengths = torch.tensor([len(event) for event in events])
    tokens = functional.rms_norm(
        embeddings(torch.tensor([token for event in events for token in event])), (embeddings.embedding_dim,)
    )
    owner = torch.repeat_interleave(torch.arange(len(events)), lengths)
    sums = torch.zeros(len(events), embeddings.embedding_dim).index_add(0, owner, tokens)
    return functional.rms_norm(sums / lengths[:, None], (embeddings.embedding_dim,))


def _share_a_direction(embeddings: nn.Embedding) -> Tensor:
    """Give all embeddings the same component along a direction and return what of it the first layer sees."""
    width = embeddings.embedding_dim
    direction = functional.normalize(torch.randn(width), dim=0)
    embeddings.weight += (_COMMON * SPREAD - embeddings.weight @ direction)[:, None] * direction
    seen = (functional.rms_norm(embeddings.weight, (width,)) @ direction).mean()
    return direction / seen


def _look_back(layer: Layer, constant: Tensor, shape: Shape) -> None:
    """Make the first heads attend to the tokens `_BACK` from theirs; `constant` reads 1 off every token.

    A query and a key that are the same everywhere differ by their rotation alone; turned against each other by the
    angle of so many tokens they match best just there.
    """
    angles = shape.rope_base ** (-torch.arange(_PAIRS) * 2 / shape.head_width)
    gain = (1 - angles.cos()).sum()
    length = (_SHARPNESS * shape.head_width**0.5 / gain).sqrt()
    for head, back in enumerate(_BACK):
        own = slice(head * shape.head_width, (head + 1) * shape.head_width)
        query, key = torch.zeros(shape.head_width), torch.zeros(shape.head_width)
        query[: 2 * _PAIRS : 2] = 1.0
        key[: 2 * _PAIRS : 2], key[1 : 2 * _PAIRS : 2] = (back * angles).cos(), (back * angles).sin()
        layer.attn_q.weight[own] = length * torch.outer(query, constant)
        layer.attn_k.weight[own] = length * torch.outer(key, constant)
        # What it sees goes where it is told apart from the token's own embedding.
        read, written = (torch.linalg.qr(torch.randn(shape.width, shape.head_width))[0] for _ in range(2))
        layer.attn_v.weight[own] = 2.0 * read.T
        layer.attn_output.weight[:, own] = _INTO_THE_STREAM * written
