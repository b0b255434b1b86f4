"""A small Llama in plain PyTorch, laid out as llama.cpp reads it: rotary pairs side by side, embeddings tied."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

SPREAD = 0.02


@dataclass(frozen=True)
class Shape:
    """Multiples of 256, so that every matrix has a repacked 4-bit kernel and none falls back to 8 bits."""

    vocabulary: int = 4_096
    layers: int = 2  # the fewest that can copy
    width: int = 256
    heads: int = 4
    inner: int = 512
    context: int = 640
    rope_base: float = 10_000.0
    norm_epsilon: float = 1e-5

    @property
    def head_width(self) -> int:
        return self.width // self.heads


class Norm(nn.Module):  # type: ignore[misc]  # torch is not there where types are checked
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(shape.width))
        self.epsilon = shape.norm_epsilon

    def forward(self, x: Tensor) -> Tensor:
        return functional.rms_norm(x, (x.shape[-1],), self.weight, self.epsilon)


class Layer(nn.Module):  # type: ignore[misc]  # torch is not there where types are checked
    def __init__(self, shape: Shape, dropout: float) -> None:
        super().__init__()
        self.shape = shape
        self.dropout = dropout
        self.attn_norm, self.ffn_norm = Norm(shape), Norm(shape)
        self.attn_q = nn.Linear(shape.width, shape.width, bias=False)
        self.attn_k = nn.Linear(shape.width, shape.width, bias=False)
        self.attn_v = nn.Linear(shape.width, shape.width, bias=False)
        self.attn_output = nn.Linear(shape.width, shape.width, bias=False)
        self.ffn_gate = nn.Linear(shape.width, shape.inner, bias=False)
        self.ffn_up = nn.Linear(shape.width, shape.inner, bias=False)
        self.ffn_down = nn.Linear(shape.inner, shape.width, bias=False)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        x = x + self._dropped(self.attn_output(self._attend(self.attn_norm(x), cosine, sine)))
        y = self.ffn_norm(x)
        return x + self._dropped(self.ffn_down(functional.silu(self.ffn_gate(y)) * self.ffn_up(y)))

    def _attend(self, y: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        batch, length, width = y.shape
        heads = (batch, length, self.shape.heads, self.shape.head_width)
        q = _rotate(self.attn_q(y).view(heads).transpose(1, 2), cosine, sine)
        k = _rotate(self.attn_k(y).view(heads).transpose(1, 2), cosine, sine)
        v = self.attn_v(y).view(heads).transpose(1, 2)
        # Padding stands on the right, so causality alone hides it.
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return mixed.transpose(1, 2).reshape(batch, length, width)

    def _dropped(self, x: Tensor) -> Tensor:
        return functional.dropout(x, self.dropout, self.training)


class Llama(nn.Module):  # type: ignore[misc]  # torch is not there where types are checked
    """Tokens in, the hidden state of every position out; `logits` turns chosen states into the next token's.

    `halfway` is the state between the layers, for a loss that reaches the lower ones directly.
    """

    def __init__(self, shape: Shape, dropout: float = 0.0) -> None:
        super().__init__()
        self.shape = shape
        self.token_embd = nn.Embedding(shape.vocabulary, shape.width)
        self.blk = nn.ModuleList(Layer(shape, dropout) for _ in range(shape.layers))
        self.output_norm = Norm(shape)
        pairs = torch.arange(0, shape.head_width, 2) / shape.head_width
        angles = torch.outer(torch.arange(shape.context), shape.rope_base**-pairs)
        self.register_buffer("cosine", angles.cos(), persistent=False)
        self.register_buffer("sine", angles.sin(), persistent=False)
        for name, weight in self.named_parameters():
            if weight.ndim > 1:
                # Narrower where a layer writes to the stream, or the first layers drown the tokens (GPT-2's rule).
                writes = name.endswith(("attn_output.weight", "ffn_down.weight"))
                nn.init.normal_(weight, std=SPREAD / (2 * shape.layers) ** 0.5 if writes else SPREAD)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.both(tokens)[0]

    def both(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return the last hidden states and those halfway up."""
        length = tokens.shape[1]
        cosine, sine = self.get_buffer("cosine")[:length], self.get_buffer("sine")[:length]
        x = self.token_embd(tokens)
        halfway = x
        for number, layer in enumerate(self.blk, start=1):
            x = layer(x, cosine, sine)
            if number == (self.shape.layers + 1) // 2:
                halfway = x
        return self.output_norm(x), halfway

    def pointed(self, state: Tensor, head: int, rows: Tensor, asked_at: Tensor) -> Tensor:
        """Return the log of the attention that a head of the last layer pays from `asked_at` to each position.

        `state` is what that layer reads; the result has one line per pair of `rows` and `asked_at`.
        """
        last, width = self.blk[-1], self.shape.head_width
        own = slice(head * width, (head + 1) * width)
        y = last.attn_norm(state)
        length = y.shape[1]
        cosine, sine = self.get_buffer("cosine")[:length], self.get_buffer("sine")[:length]
        k = _rotate(functional.linear(y, last.attn_k.weight[own]), cosine, sine)
        q = _rotate(functional.linear(y[rows, asked_at], last.attn_q.weight[own]), cosine[asked_at], sine[asked_at])
        scores = torch.einsum("nd,nld->nl", q, k[rows]) / width**0.5
        hidden = torch.arange(length) > asked_at[:, None]
        return scores.masked_fill(hidden, -torch.inf).log_softmax(dim=-1)

    def logits(self, hidden: Tensor) -> Tensor:
        return functional.linear(hidden, self.token_embd.weight)


def _rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cosine - odd * sine, even * sine + odd * cosine), dim=-1).flatten(-2)
