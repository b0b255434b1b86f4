"""A 16-bit GGUF to 4 bits, through llama.cpp."""

from pathlib import Path
from typing import Final

import gguf

from models.contracts.errors import InputError
from models.llama import quantize_file

KIND: Final = "IQ4_NL"
"""As small and as fast as Q4_0, a little nearer to the 16-bit model, and the one 4-bit type that never crashed a
build with AMX (GCC 12)."""

# llama.cpp keeps norms whole and gives the output layer, here the embedding too, six bits.
_ALLOWED = {gguf.GGMLQuantizationType.IQ4_NL, gguf.GGMLQuantizationType.Q6_K, gguf.GGMLQuantizationType.F32}


def compress(source: Path, target: Path) -> None:
    """Write `source` in 4 bits; `target` appears whole or not at all.

    Raises:
        InputError: llama.cpp refuses it, or fell back to a larger type, which it only mentions in its log.
    """
    unfinished = target.with_name(target.name + ".unfinished")
    try:
        quantize_file(source, unfinished, KIND)
        strangers = {tensor.tensor_type.name for tensor in gguf.GGUFReader(unfinished).tensors} - {
            kind.name for kind in _ALLOWED
        }
        if strangers:
            raise InputError(f"{source}: tensors fell back to {sorted(strangers)}, {KIND} wanted; discarded the result")
        unfinished.rename(target)
    finally:
        unfinished.unlink(missing_ok=True)
