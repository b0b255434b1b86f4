"""An encoder of the BERT family, from the graph that an ONNX file holds to a checkpoint as `transformers` reads it.

An export keeps the names of a network's biases, norms and tables, but writes the matrix of a linear layer transposed
and under a name of its own: which layer it is of is told by the bias that is added to what it gives.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from safetensors.numpy import save_file

from models.contracts.errors import InputError

_MARKS = {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"}
_EMBEDDINGS = (
    *(f"embeddings.{kind}_embeddings.weight" for kind in ("word", "position", "token_type")),
    *(f"embeddings.LayerNorm.{part}" for part in ("weight", "bias")),
)
_OF_A_LAYER = tuple(
    f"{name}.{part}"
    for name in (
        *(f"attention.self.{name}" for name in ("query", "key", "value")),
        *("attention.output.dense", "attention.output.LayerNorm"),
        *("intermediate.dense", "output.dense", "output.LayerNorm"),
    )
    for part in ("weight", "bias")
)
_LAYER = re.compile(r"encoder\.layer\.(\d+)\.")

Tensors = dict[str, NDArray[np.float32]]


def write_checkpoint(path: Path, vocabulary: Path, out: Path) -> None:
    """Write weights, config and vocabulary into `out`, from a graph and its `tokenizer.json`.

    Raises:
        InputError: the graph cannot be read, or is no encoder of the BERT family as PyTorch exports one.
    """
    try:
        graph = onnx.load(path).graph
    except Exception as error:  # protobuf's, which is another package's
        raise InputError(f"{path}: no ONNX graph that can be read: {error}") from error
    tensors = _tensors(graph)
    layers = 1 + max((int(found[1]) for name in tensors if (found := _LAYER.match(name))), default=-1)
    wanted = {*_EMBEDDINGS, *(f"encoder.layer.{at}.{name}" for at in range(layers) for name in _OF_A_LAYER)}
    if layers == 0 or set(tensors) != wanted:
        other = sorted(wanted ^ set(tensors))
        raise InputError(
            f"{path}: {layers} layers of BERT, and other tensors than those have: {', '.join(other[:4])}; an encoder "
            "of the BERT family without a head wanted, exported by PyTorch and not quantized"
        )
    tokenizer = json.loads(vocabulary.read_bytes())
    config = _config(path, graph, tensors, layers) | {"pad_token_id": tokenizer["model"]["vocab"][_MARKS["pad"]]}
    about = {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": tokenizer["normalizer"]["lowercase"],
        "model_max_length": config["max_position_embeddings"],
        **{f"{kind}_token": mark for kind, mark in _MARKS.items()},
    }
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    for name, content in (("config", config), ("tokenizer_config", about), ("tokenizer", tokenizer)):
        (out / f"{name}.json").write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
    tokens = sorted(tokenizer["model"]["vocab"].items(), key=lambda pair: int(pair[1]))
    (out / "vocab.txt").write_text("".join(f"{token}\n" for token, _ in tokens), encoding="utf-8")


def _tensors(graph: Any) -> Tensors:
    """Return the weights by the names and in the shapes that `transformers` has for them."""
    found = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    added = {name: node for node in graph.node if node.op_type == "Add" for name in node.input}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in found and node.output[0] in added:
            bias = next((name for name in added[node.output[0]].input if name.endswith(".bias")), "")
            if bias in found:
                found[f"{bias.removesuffix('bias')}weight"] = found.pop(node.input[1]).T
    # Numbers of positions are no weights: `transformers` makes them itself.
    return {
        name: np.ascontiguousarray(weight, dtype=np.float32)
        for name, weight in found.items()
        if name != "embeddings.position_ids"
    }


def _config(path: Path, graph: Any, tensors: Tensors, layers: int) -> dict[str, object]:
    tokens, width = tensors["embeddings.word_embeddings.weight"].shape
    if not any(node.op_type == "Erf" for node in graph.node):
        raise InputError(f"{path}: no Erf among its nodes; an encoder with exact GELU wanted, as BERT has")
    of_head = _constant_before(graph, "Softmax", "Div")  # scores are divided by the root of a head's width
    epsilon = _constant_before(graph, "Sqrt", "Add")  # inside a norm's root
    if of_head is None or epsilon is None:
        missing = "width of a head" if of_head is None else "epsilon of its norms"
        raise InputError(
            f"{path}: the {missing} cannot be told from its nodes; a graph as PyTorch 2.0 exports it wanted"
        )
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "vocab_size": tokens,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // round(of_head**2),
        "intermediate_size": tensors["encoder.layer.0.intermediate.dense.bias"].shape[0],
        "max_position_embeddings": tensors["embeddings.position_embeddings.weight"].shape[0],
        "type_vocab_size": tensors["embeddings.token_type_embeddings.weight"].shape[0],
        "hidden_act": "gelu",
        "layer_norm_eps": float(f"{epsilon:.3g}"),
    }


def _constant_before(graph: Any, behind: str, kind: str) -> float | None:
    """Return the constant of the nearest `kind` of node that the first `behind` computes with."""
    makers = {name: node for node in graph.node for name in node.output}
    for node in _back_from(next((one for one in graph.node if one.op_type == behind), None), makers):
        if node.op_type == kind:
            for name in node.input:
                if name in makers and makers[name].op_type == "Constant":
                    return float(numpy_helper.to_array(makers[name].attribute[0].t))
    return None


def _back_from(node: Any, makers: dict[str, Any]) -> Iterator[Any]:
    waiting = [node] if node is not None else []
    while waiting:
        one = waiting.pop(0)
        yield one
        waiting += [makers[name] for name in one.input if name in makers]
