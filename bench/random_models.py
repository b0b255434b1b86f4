"""GGUF files with random weights: the right shape and vocabulary for measuring speed, and nothing else."""

from collections.abc import Sequence
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, TokenType
from msgspec import Struct

from models.contracts.release import METADATA_KEY, Release
from models.contracts.wire import encode
from models.seal import SEAL_KEY, UNSEALED, seal

_Q4_0 = GGMLQuantizationType.Q4_0


class Vocabulary(Struct, frozen=True, kw_only=True):
    """A tokeniser as a GGUF holds it."""

    model: str  # `gpt2` is byte-level BPE, `bert` WordPiece
    tokens: list[str]
    types: list[int]
    merges: list[str] = []
    pre: str = "gpt-2"
    end: int = 0  # the token that ends a text
    chat_template: str = ""


class Shape(Struct, frozen=True, kw_only=True):
    layers: int
    width: int
    heads: int
    key_heads: int
    hidden: int
    architecture: str = "llama"
    context: int = 4096


FIVE_MILLION = Shape(layers=5, width=256, heads=4, key_heads=4, hidden=768)  # with 4,096 tokens: 5.3M parameters
QWEN_HALF_BILLION = Shape(layers=24, width=896, heads=14, key_heads=2, hidden=4864, architecture="qwen2")


def vocabulary_of(path: Path, *, size: int | None = None) -> Vocabulary:
    """Read the tokeniser of a GGUF; with `size`, only its bytes, the first merges, and one token to end a text."""
    reader = gguf.GGUFReader(path)

    def read(key: str, default: object = None) -> object:
        found = reader.get_field(key)
        return default if found is None else found.contents()

    whole = Vocabulary(
        model=str(read("tokenizer.ggml.model")),
        tokens=list(read("tokenizer.ggml.tokens")),  # type: ignore[call-overload]
        types=list(read("tokenizer.ggml.token_type")),  # type: ignore[call-overload]
        merges=list(read("tokenizer.ggml.merges", [])),  # type: ignore[call-overload]
        pre=str(read("tokenizer.ggml.pre")),
        end=int(read("tokenizer.ggml.eos_token_id", 0)),  # type: ignore[call-overload]
        chat_template=str(read("tokenizer.chat_template", "")),
    )
    return whole if size is None else trimmed(whole, size)


def trimmed(whole: Vocabulary, size: int) -> Vocabulary:
    """Keep the single bytes and what the first merges make of them."""
    known = set(whole.tokens)
    kept = dict.fromkeys(token for token in whole.tokens if len(token) == 1)
    merges = []
    for merge in whole.merges:
        if len(kept) == size - 1:
            break
        left, right = merge.split(" ", 1)
        if left in kept and right in kept and left + right in known:
            merges.append(merge)
            kept[left + right] = None
    return byte_level(list(kept), merges, pre=whole.pre)


def byte_level(tokens: Sequence[str], merges: Sequence[str], *, pre: str = "gpt-2") -> Vocabulary:
    """Return a byte-level BPE of these tokens and one control token at the end."""
    types = [int(TokenType.NORMAL)] * len(tokens) + [int(TokenType.CONTROL)]
    tokens = [*tokens, "<|endoftext|>"]
    return Vocabulary(model="gpt2", tokens=tokens, types=types, merges=list(merges), pre=pre, end=len(tokens) - 1)


def write_decoder(
    path: Path, shape: Shape, vocabulary: Vocabulary, release: Release | None = None, *, seed: int = 0
) -> None:
    """Write a Llama- or Qwen2-shaped model at Q4_0, its tied embeddings at Q8_0 as llama.cpp's quantiser does."""
    rng = np.random.default_rng(seed)
    writer = _writer(path, shape, vocabulary, release)
    head = shape.width // shape.heads
    writer.add_head_count_kv(shape.key_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_rope_dimension_count(head)
    _add_eight_bit(writer, rng, "token_embd.weight", len(vocabulary.tokens), shape.width)
    for layer in range(shape.layers):
        name = f"blk.{layer}."
        writer.add_tensor(name + "attn_norm.weight", np.ones(shape.width, np.float32))
        writer.add_tensor(name + "ffn_norm.weight", np.ones(shape.width, np.float32))
        for part, rows, columns in (
            ("attn_q", shape.heads * head, shape.width),
            ("attn_k", shape.key_heads * head, shape.width),
            ("attn_v", shape.key_heads * head, shape.width),
            ("attn_output", shape.width, shape.heads * head),
            ("ffn_gate", shape.hidden, shape.width),
            ("ffn_up", shape.hidden, shape.width),
            ("ffn_down", shape.width, shape.hidden),
        ):
            _add_four_bit(writer, rng, f"{name}{part}.weight", rows, columns)
            if shape.architecture == "qwen2" and part in ("attn_q", "attn_k", "attn_v"):
                writer.add_tensor(f"{name}{part}.bias", rng.normal(0, 0.1, rows).astype(np.float32))
    writer.add_tensor("output_norm.weight", np.ones(shape.width, np.float32))
    _finish(writer, path)


def write_encoder(
    path: Path,
    shape: Shape,
    vocabulary: Vocabulary,
    labels: Sequence[str],
    release: Release | None = None,
    *,
    seed: int = 0,
) -> None:
    """Write a BERT-shaped model with a classification head over the mean of all tokens, at F32."""
    rng = np.random.default_rng(seed)
    writer = _writer(path, shape, vocabulary, release)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(value=False)
    writer.add_pooling_type(gguf.PoolingType.RANK)
    writer.add_classifier_output_labels(list(labels))
    writer.add_token_type_count(2)
    for role, token in (("bos", "[CLS]"), ("sep", "[SEP]"), ("unk", "[UNK]"), ("pad", "[PAD]"), ("mask", "[MASK]")):
        getattr(writer, f"add_{role}_token_id")(vocabulary.tokens.index(token))

    def add(name: str, *dimensions: int) -> None:
        values = rng.normal(0, 1 / np.sqrt(dimensions[-1]), dimensions).astype(np.float32)
        writer.add_tensor(name, values)

    def add_norm(name: str) -> None:
        writer.add_tensor(name + ".weight", np.ones(shape.width, np.float32))
        writer.add_tensor(name + ".bias", np.zeros(shape.width, np.float32))

    add("token_embd.weight", len(vocabulary.tokens), shape.width)
    add("token_types.weight", 2, shape.width)
    add("position_embd.weight", shape.context, shape.width)
    add_norm("token_embd_norm")
    for layer in range(shape.layers):
        name = f"blk.{layer}."
        for part, rows, columns in (
            ("attn_q", shape.width, shape.width),
            ("attn_k", shape.width, shape.width),
            ("attn_v", shape.width, shape.width),
            ("attn_output", shape.width, shape.width),
            ("ffn_up", shape.hidden, shape.width),
            ("ffn_down", shape.width, shape.hidden),
        ):
            add(f"{name}{part}.weight", rows, columns)
            writer.add_tensor(f"{name}{part}.bias", np.zeros(rows, np.float32))
        add_norm(name + "attn_output_norm")
        add_norm(name + "layer_output_norm")
    add("cls.output.weight", len(labels), shape.width)
    writer.add_tensor("cls.output.bias", np.zeros(len(labels), np.float32))
    _finish(writer, path)


def _writer(path: Path, shape: Shape, vocabulary: Vocabulary, release: Release | None) -> GGUFWriter:
    writer = GGUFWriter(path, shape.architecture)
    writer.add_name(path.stem)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.hidden)
    writer.add_head_count(shape.heads)
    writer.add_vocab_size(len(vocabulary.tokens))
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.merges:
        writer.add_token_merges(vocabulary.merges)
        writer.add_bos_token_id(vocabulary.end)
        writer.add_eos_token_id(vocabulary.end)
        writer.add_add_bos_token(value=False)
    if vocabulary.chat_template:
        writer.add_chat_template(vocabulary.chat_template)
    if release is not None:
        writer.add_string(SEAL_KEY, UNSEALED)
        writer.add_string(METADATA_KEY, encode(release).decode())
    return writer


def _add_four_bit(writer: GGUFWriter, rng: np.random.Generator, name: str, rows: int, columns: int) -> None:
    """Add random blocks of 32 nibbles: quantising random numbers would give the same and take a minute."""
    blocks = rows * columns // 32
    packed = np.empty((blocks, 18), np.uint8)
    packed[:, 2:] = rng.integers(0, 256, (blocks, 16), np.uint8)
    # Nibbles minus 8 spread by 4.6, so this scale gives weights of standard deviation 1/sqrt(columns).
    packed[:, :2] = np.frombuffer(np.float16(1 / (4.6 * np.sqrt(columns))).tobytes(), np.uint8)
    writer.add_tensor(name, packed.reshape(rows, columns // 32 * 18), raw_dtype=_Q4_0)


def _add_eight_bit(writer: GGUFWriter, rng: np.random.Generator, name: str, rows: int, columns: int) -> None:
    blocks = rows * columns // 32
    packed = np.empty((blocks, 34), np.uint8)
    packed[:, 2:] = rng.integers(0, 256, (blocks, 32), np.uint8)
    packed[:, :2] = np.frombuffer(np.float16(1 / (74 * np.sqrt(columns))).tobytes(), np.uint8)
    writer.add_tensor(name, packed.reshape(rows, columns // 32 * 34), raw_dtype=GGMLQuantizationType.Q8_0)


def _finish(writer: GGUFWriter, path: Path) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    if any(SEAL_KEY in pairs for pairs in writer.kv_data):
        seal(path)
