"""Weights as 4 bits hold them, so that a network learns with the loss it will be served with.

Q4_0 keeps 32 weights as multiples -8 to 7 of one scale, which is an eighth of the weight that lies furthest from 0. A
network whose last steps were computed with such weights (Jacob et al., "Quantization and Training of Neural Networks
for Efficient Integer-Arithmetic-Only Inference", 2018: rounded forward, straight through backward) has been chosen to
answer well with them; and weights that are such multiples already are written as Q4_0 without any loss.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_BLOCK = 32


def rounded(weight: Tensor) -> Tensor:
    """Return a matrix as Q4_0 holds it; its rows are parted into blocks of 32."""
    blocks = weight.detach().reshape(-1, _BLOCK)
    furthest = blocks.gather(1, blocks.abs().argmax(dim=1, keepdim=True))
    scale = (furthest / -8).half().float()  # it is kept in 16 bits
    # As ggml's quantize_row_q4_0 does: by the scale before it was rounded, half up.
    inverse = torch.where(furthest == 0, torch.zeros_like(furthest), -8 / furthest)
    steps = (blocks * inverse + 8.5).floor().clamp(0, 15) - 8
    return (steps * scale).reshape(weight.shape)


def matrices(network: nn.Module) -> list[nn.Parameter]:
    """Return the weights that 4 bits are for: those of linear layers, and tables of token vectors.

    Rows that are not whole blocks are written in another type by llama.cpp, and are left as they are here.
    """
    parts = [
        part
        for name, part in network.named_modules()
        if isinstance(part, nn.Linear) or (isinstance(part, nn.Embedding) and name.endswith("word_embeddings"))
    ]
    return [part.weight for part in parts if part.weight.shape[1] % _BLOCK == 0]


@contextmanager
def as_four_bits(weights: Sequence[nn.Parameter]) -> Iterator[None]:
    """Compute with rounded weights; gradients then move the weights themselves."""
    whole = [weight.data for weight in weights]
    for weight in weights:
        weight.data = rounded(weight)
    try:
        yield
    finally:
        for weight, data in zip(weights, whole, strict=True):
            weight.data = data


def round_all(weights: Sequence[nn.Parameter]) -> None:
    """Leave nothing in the weights that 4 bits do not hold."""
    for weight in weights:
        weight.data = rounded(weight)
