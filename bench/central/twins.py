"""One set of random weights twice: a checkpoint as Hugging Face's tools read it, and the F16 GGUF that llama.cpp reads.

Both have the same tokeniser and the same chat template, so what they answer differs by arithmetic alone. Neither
`torch` nor `transformers` is needed to write them.
"""

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType, GGUFWriter, TokenType

from bench.random_models import Shape, Vocabulary
from models.contracts.release import METADATA_KEY, Release
from models.contracts.wire import encode
from models.seal import SEAL_KEY, UNSEALED, seal

_EPSILON = 1e-5
_ROPE_BASE = 10_000.0
_Float16s = npt.NDArray[np.float16]
_NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write_twins(
    folder: Path, file: Path, shape: Shape, vocabulary: Vocabulary, release: Release | None = None, *, seed: int = 0
) -> None:
    """Write a Llama as a checkpoint in `folder` and as a GGUF in `file`; the release goes into the GGUF."""
    weights = dict(_weights(shape, len(vocabulary.tokens), np.random.default_rng(seed)))
    folder.mkdir(parents=True, exist_ok=True)
    _write_safetensors(folder / "model.safetensors", weights)
    (folder / "config.json").write_text(json.dumps(_config(shape, vocabulary)), encoding="utf-8")
    (folder / "tokenizer.json").write_text(json.dumps(_tokeniser(vocabulary)), encoding="utf-8")
    end = vocabulary.tokens[vocabulary.end]
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": end, "eos_token": end}
    if vocabulary.chat_template:
        about["chat_template"] = vocabulary.chat_template
    (folder / "tokenizer_config.json").write_text(json.dumps(about), encoding="utf-8")
    _write_gguf(file, shape, vocabulary, weights, release)


def _weights(shape: Shape, tokens: int, rng: np.random.Generator) -> Iterator[tuple[str, _Float16s]]:
    head = shape.width // shape.heads

    def drawn(rows: int, columns: int, spread: float = 1.0) -> _Float16s:
        return rng.normal(0, spread / np.sqrt(columns), (rows, columns)).astype(np.float16)

    # Tied to the output layer: large enough for logits that differ, as a trained model's do.
    yield "model.embed_tokens", drawn(tokens, shape.width, 3.0)
    for layer in range(shape.layers):
        for part, rows, columns in (
            ("self_attn.q_proj", shape.heads * head, shape.width),
            ("self_attn.k_proj", shape.key_heads * head, shape.width),
            ("self_attn.v_proj", shape.key_heads * head, shape.width),
            ("self_attn.o_proj", shape.width, shape.heads * head),
            ("mlp.gate_proj", shape.hidden, shape.width),
            ("mlp.up_proj", shape.hidden, shape.width),
            ("mlp.down_proj", shape.width, shape.hidden),
        ):
            yield f"model.layers.{layer}.{part}", drawn(rows, columns)
        for part in ("input_layernorm", "post_attention_layernorm"):
            yield f"model.layers.{layer}.{part}", np.ones(shape.width, np.float16)
    yield "model.norm", np.ones(shape.width, np.float16)


def _write_safetensors(path: Path, weights: dict[str, _Float16s]) -> None:
    """Write the format's eight bytes of length, its header as JSON, and the numbers."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, values in weights.items():
        header[f"{name}.weight"] = {
            "dtype": "F16",
            "shape": list(values.shape),
            "data_offsets": [at, at + values.nbytes],
        }
        at += values.nbytes
    told = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(told)) + told)
        for values in weights.values():
            file.write(values.tobytes())


def _config(shape: Shape, vocabulary: Vocabulary) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": len(vocabulary.tokens),
        "hidden_size": shape.width,
        "intermediate_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.key_heads,
        "max_position_embeddings": shape.context,
        "rms_norm_eps": _EPSILON,
        "rope_theta": _ROPE_BASE,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "bos_token_id": vocabulary.end,
        "eos_token_id": vocabulary.end,
        "dtype": "float16",
    }


def _tokeniser(vocabulary: Vocabulary) -> dict[str, object]:
    """Return a byte-level BPE as `tokenizer.json` describes it."""
    numbered = list(enumerate(zip(vocabulary.tokens, vocabulary.types, strict=True)))
    marks = [(number, token, kind) for number, (token, kind) in numbered if kind != TokenType.NORMAL]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    split = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "added_tokens": [
            {"id": number, "content": token, "special": kind == TokenType.CONTROL, **flags}
            for number, token, kind in marks
        ],
        "normalizer": None,
        "pre_tokenizer": split,
        "post_processor": None,
        "decoder": split,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "byte_fallback": False,
            "vocab": {token: number for number, (token, kind) in numbered if kind == TokenType.NORMAL},
            "merges": vocabulary.merges,
        },
    }


def _write_gguf(
    path: Path, shape: Shape, vocabulary: Vocabulary, weights: dict[str, _Float16s], release: Release | None
) -> None:
    writer = GGUFWriter(path, "llama")
    writer.add_name(path.stem)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.hidden)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.key_heads)
    writer.add_layer_norm_rms_eps(_EPSILON)
    writer.add_rope_freq_base(_ROPE_BASE)
    writer.add_rope_dimension_count(shape.width // shape.heads)
    writer.add_vocab_size(len(vocabulary.tokens))
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    writer.add_token_merges(vocabulary.merges)
    writer.add_bos_token_id(vocabulary.end)
    writer.add_eos_token_id(vocabulary.end)
    writer.add_add_bos_token(value=False)
    if vocabulary.chat_template:
        writer.add_chat_template(vocabulary.chat_template)
    if release is not None:
        writer.add_string(SEAL_KEY, UNSEALED)
        writer.add_string(METADATA_KEY, encode(release).decode())
    for name, values in weights.items():
        if values.ndim == 1:
            writer.add_tensor(_gguf_name(name), values.astype(np.float32))
        else:
            writer.add_tensor(_gguf_name(name), _rotated(name, values, shape), raw_dtype=GGMLQuantizationType.F16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    if release is not None:
        seal(path)


def _gguf_name(name: str) -> str:
    if name == "model.embed_tokens":
        return "token_embd.weight"
    if name == "model.norm":
        return "output_norm.weight"
    _, _, layer, part = name.split(".", 3)
    return f"blk.{layer}.{_NAMES[part]}.weight"


def _rotated(name: str, values: _Float16s, shape: Shape) -> _Float16s:
    """Put the rows of a query or a key as llama.cpp turns them: pairs side by side, not half a head apart."""
    heads = {"q_proj": shape.heads, "k_proj": shape.key_heads}.get(name.rsplit(".", 1)[-1])
    if heads is None:
        return values
    rows, columns = values.shape
    pairs = values.reshape(heads, 2, rows // heads // 2, columns)
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(rows, columns))
