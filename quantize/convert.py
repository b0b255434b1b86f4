"""Weights and vocabulary to a 16-bit GGUF, written directly: no converter knows a vocabulary of our own."""

import json
from pathlib import Path

import gguf
import numpy as np
from tokenizers import Tokenizer

from models.contracts.errors import InputError
from quantize.network import Llama
from quantize.vocabulary import END_OF_TEXT


def write_gguf(network: Llama, tokenizer: Tokenizer, name: str, path: Path) -> None:
    """Write `network` as 16-bit floats; norms stay 32-bit, as llama.cpp wants them.

    Raises:
        InputError: the vocabulary does not fit the network.
    """
    shape = network.shape
    words, merges = _vocabulary(tokenizer)
    if len(words) != shape.vocabulary:
        raise InputError(f"{name}: a vocabulary of {len(words)}, a network for {shape.vocabulary}; nothing written")
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(name)
    writer.add_license("Apache-2.0")
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.inner)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_layer_norm_rms_eps(shape.norm_epsilon)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_rope_dimension_count(shape.head_width)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")  # ByteLevel's regular expression, under the name that llama.cpp has for it
    writer.add_token_list(words)
    writer.add_token_types([gguf.TokenType.NORMAL] * (len(words) - 1) + [gguf.TokenType.CONTROL])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(len(words) - 1)
    writer.add_eos_token_id(len(words) - 1)
    writer.add_add_bos_token(False)
    for key, weight in network.state_dict().items():
        kind = np.float32 if weight.ndim == 1 else np.float16
        writer.add_tensor(key, weight.detach().numpy().astype(kind))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _vocabulary(tokenizer: Tokenizer) -> tuple[list[str], list[str]]:
    """Return the words by id, the control token last, and the merges."""
    model = json.loads(tokenizer.to_str())["model"]
    by_id = sorted(model["vocab"].items(), key=lambda entry: entry[1])
    words = [word for word, _ in by_id] + [END_OF_TEXT]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    return words, merges
