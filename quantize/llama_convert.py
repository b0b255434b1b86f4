"""llama.cpp's converter, run in a process of its own: `python -m quantize.llama_convert SOURCE CHECKPOINT TARGET`.

It knows a vocabulary by the hash of what it makes of a test text, and refuses one that it has not met. A byte-level BPE
that splits as GPT-2's does is called so here, and a WordPiece as BERT's is; that the tokens are the same
`quantize.round_trip` checks afterwards.
"""

import json
import runpy
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

_GPT2, _BERT = "gpt-2", "bert-bge"  # the converter's own names


def main(source: str, checkpoint: str, target: str) -> None:
    """Convert a Hugging Face folder to a 16-bit GGUF."""
    sys.path[:0] = [source, f"{source}/gguf-py"]
    base = import_module("conversion.base")
    class_: Any = next(
        kind for kind in vars(base).values() if isinstance(kind, type) and "get_vocab_base_pre" in vars(kind)
    )
    known = class_.get_vocab_base_pre

    def name_of(model: Any, tokenizer: Any) -> Any:
        try:
            return known(model, tokenizer)
        except NotImplementedError:
            if name := split_of(Path(checkpoint)):
                return name
            raise

    class_.get_vocab_base_pre = name_of
    by_sentencepiece = class_._create_vocab_sentencepiece  # noqa: SLF001 - it has no public name

    def vocabulary_of(model: Any) -> Any:
        # The converter imports sentencepiece before it looks whether there is anything to read by it.
        if not (Path(checkpoint) / "tokenizer.model").is_file():
            raise FileNotFoundError(f"{checkpoint}/tokenizer.model")
        return by_sentencepiece(model)

    class_._create_vocab_sentencepiece = vocabulary_of  # noqa: SLF001
    sys.argv = [f"{source}/convert_hf_to_gguf.py", checkpoint, "--outfile", target, "--outtype", "f16"]
    runpy.run_path(sys.argv[0], run_name="__main__")


def split_of(checkpoint: Path) -> str | None:
    """Return what llama.cpp calls the way in which the tokeniser parts a text, where its kind alone says that."""
    told = json.loads((checkpoint / "tokenizer.json").read_bytes())
    if (told.get("model") or {}).get("type") == "WordPiece":
        return _BERT  # for this kind llama.cpp has one way only
    parts = told.get("pre_tokenizer") or {}
    # By its own regular expression and nothing else.
    return _GPT2 if parts.get("type") == "ByteLevel" and parts.get("use_regex", True) else None


if __name__ == "__main__":
    main(*sys.argv[1:])
