"""Weights as Q4_0 holds them: what llama.cpp's own code makes of the same numbers."""

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize
from torch import nn

from models.llama import quantize_file
from quantize.four_bits import as_four_bits, matrices, round_all, rounded

CHANCE = np.random.default_rng(7)
Q4_0 = GGMLQuantizationType.Q4_0
WEIGHTS = {
    "as a layer begins": CHANCE.normal(0, 0.02, (64, 96)),
    "wide": CHANCE.standard_cauchy((32, 64)),
    "nothing": np.zeros((2, 32)),
    "one in a block": np.eye(32),
    "small": CHANCE.normal(0, 1e-6, (8, 64)),
    "as large either way": np.tile([1.0, -1.0, 0.5, -0.5], (4, 16)),
    "half steps": np.tile(np.arange(-8, 8) / 2, (4, 2)),
}

every_matrix = pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS)


def as_ggml_holds_it(weights: np.ndarray) -> np.ndarray:
    return dequantize(quantize(weights.astype(np.float32), Q4_0), Q4_0)


@every_matrix
def test_a_matrix_is_rounded_as_ggml_rounds_it(weights: np.ndarray) -> None:
    found = rounded(torch.tensor(weights, dtype=torch.float32))

    assert found.dtype == torch.float32
    np.testing.assert_array_equal(found.numpy(), as_ggml_holds_it(weights))


@every_matrix
def test_what_was_rounded_is_written_without_any_loss(weights: np.ndarray) -> None:
    found = rounded(torch.tensor(weights, dtype=torch.float32))

    np.testing.assert_array_equal(as_ggml_holds_it(found.numpy()), found.numpy())
    assert torch.equal(rounded(found), found)


def test_llama_cpp_writes_rounded_weights_as_they_are_from_16_bits_too(tmp_path: Path) -> None:
    held = rounded(torch.tensor(CHANCE.normal(0, 0.02, (64, 256)), dtype=torch.float32)).numpy()
    writer = gguf.GGUFWriter(tmp_path / "whole.gguf", "llama")
    for number, kind in enumerate((np.float32, np.float16)):
        writer.add_tensor(f"blk.{number}.ffn_up.weight", held.astype(kind))
    for key in ("block_count", "context_length", "embedding_length", "feed_forward_length"):
        getattr(writer, f"add_{key}")(2)
    writer.add_head_count(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    quantize_file(tmp_path / "whole.gguf", tmp_path / "small.gguf", "Q4_0")

    for tensor in gguf.GGUFReader(tmp_path / "small.gguf").tensors:
        assert tensor.tensor_type == Q4_0
        np.testing.assert_array_equal(dequantize(tensor.data, Q4_0), held)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(4, 32)
        self.position_embeddings = nn.Embedding(4, 32)
        self.layer = nn.Linear(32, 32)
        self.norm = nn.LayerNorm(32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.layer(x))


def test_linear_layers_and_token_tables_are_what_four_bits_are_for() -> None:
    network = Small()

    assert list(map(id, matrices(network))) == [id(network.word_embeddings.weight), id(network.layer.weight)]


def test_within_it_is_computed_with_rounded_weights_and_learnt_with_whole_ones() -> None:
    torch.manual_seed(1)
    network, x = Small(), torch.randn(3, 32)
    before = network.layer.weight.detach().clone()
    with as_four_bits(matrices(network)):
        assert torch.equal(network.layer.weight, rounded(before))
        network(x).square().sum().backward()
    gradient = network.layer.weight.grad

    assert torch.equal(network.layer.weight, before)
    assert gradient is not None
    assert gradient.abs().sum() > 0

    twin = Small()
    twin.load_state_dict(network.state_dict())
    round_all([twin.layer.weight])
    twin(x).square().sum().backward()
    assert torch.equal(twin.layer.weight.grad, gradient)  # straight through


def test_whole_weights_are_back_after_an_error() -> None:
    network = Small()
    before = network.layer.weight.detach().clone()

    with pytest.raises(KeyboardInterrupt), as_four_bits(matrices(network)):
        raise KeyboardInterrupt

    assert torch.equal(network.layer.weight, before)


def test_what_was_rounded_for_good_stays_rounded() -> None:
    network = Small()
    before = network.layer.weight.detach().clone()
    round_all(matrices(network))

    assert torch.equal(network.layer.weight, rounded(before))
    assert not torch.equal(network.layer.weight, before)
