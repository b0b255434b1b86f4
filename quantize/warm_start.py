"""Where training starts: as a bag of words that knows most of what there is to know about labels.

From random weights, one label behind a hundred tokens teaches a Llama nothing for its first five hundred steps. A bag
of words (the mean of the tokens' normalised embeddings, and one row per label) learns in seconds, and a first layer
that attends to everything alike and copies what it sees *is* that bag. So the embeddings, the labels' rows and the
first attention are taken from it, and training goes on from there.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from quantize.network import SPREAD, Llama
from quantize.vocabulary import Encoded

_ROUNDS = 4  # more only learn the templates by heart
_RATE = 2e-3
_BATCH = 64
_DROPOUT = 0.3
_INTO_THE_STREAM = 0.1  # the bag stands beside the token's own embedding, and does not drown it


def warm_start(network: Llama, guesses: nn.Linear, encoded: Sequence[Encoded], label_ids: Sequence[int]) -> Tensor:
    """Train a bag on `encoded` and make `network` and `guesses` begin as it; return its last loss."""
    width = network.shape.width
    rows = nn.Parameter(torch.zeros(len(label_ids), width))
    optimiser = torch.optim.Adam([network.token_embd.weight, rows], lr=_RATE)
    kinds = torch.tensor([list(label_ids).index(one.label) for one in encoded])
    loss = torch.tensor(0.0)
    for _ in range(_ROUNDS):
        for chosen in torch.randperm(len(encoded)).split(_BATCH):
            bags = _bags([encoded[at].event for at in chosen.tolist()], network.token_embd)
            scores = functional.dropout(bags, _DROPOUT) @ rows.T
            loss = functional.cross_entropy(scores, kinds[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    with torch.no_grad():
        # The first layer normalises, so only the direction matters to the bag; as output rows, long ones shout.
        network.token_embd.weight *= SPREAD / network.token_embd.weight.std()
        network.token_embd.weight[list(label_ids)] = rows
        first = network.blk[0]
        first.attn_v.weight.copy_(torch.eye(width))
        first.attn_output.weight.copy_(_INTO_THE_STREAM * torch.eye(width))
        guesses.weight.copy_(rows)
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
