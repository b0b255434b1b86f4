"""Checkpoints as `transformers` reads them, without its chatter, and with our errors."""

from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, BertConfig
from transformers.utils import logging

from models.contracts.errors import InputError

logging.set_verbosity_error()
logging.disable_progress_bar()


def read_encoder(checkpoint: Path) -> Any:
    """Return an encoder of the BERT family, without the pooler that llama.cpp does not know.

    Raises:
        InputError: it is none, or damaged.
    """
    config = _config(checkpoint)
    if not isinstance(config, BertConfig):
        raise InputError(
            f"{checkpoint}: architecture `{config.model_type}`; an encoder of the BERT family wanted, which is what "
            "llama.cpp reads with a classification head"
        )
    # Dropout among the weights of attention keeps the fused kernel away: a quarter of a step's time on a CPU.
    how = {"attn_implementation": "sdpa", "attention_probs_dropout_prob": 0.0}
    return _loaded(AutoModel, checkpoint, add_pooling_layer=False, **how)


def read_decoder(checkpoint: Path) -> Any:
    """Return a causal language model.

    Raises:
        InputError: it is none, or damaged.
    """
    _config(checkpoint)
    return _loaded(AutoModelForCausalLM, checkpoint)


def _config(checkpoint: Path) -> Any:
    try:
        return AutoConfig.from_pretrained(checkpoint, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{checkpoint}: its config.json says nothing that is known: {_first_line(error)}") from error


def _loaded(kind: Any, checkpoint: Path, **how: Any) -> Any:
    try:
        return kind.from_pretrained(checkpoint, local_files_only=True, **how)
    except Exception as error:  # safetensors, torch and transformers have each their own
        raise InputError(f"{checkpoint}: its weights cannot be read: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
