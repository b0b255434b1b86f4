"""Whether a converted checkpoint says what the checkpoint says: tokens and logits, on real texts.

llama.cpp tokenises by itself, and its converter drops what it has no tensor for (BERT's pooler) without a word; both
show here and nowhere else.

Logits may lie apart by 1 % of the spread of a text's logits (from the smallest to the largest), and by 0.1 in any case:
what 16 bits round away grows with the logits, and what is left out moves them by far more.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct

from models.contracts.errors import InputError
from models.contracts.release import WordingName
from models.llama import Batch, Context, Encoder, Model
from models.wording import words_of

_TEXTS = 100
_MOST_TOKENS = 256
_MOST_FOREIGN = 0.02  # share of the texts that may be tokenised differently: unusual Unicode
_MOST_APART = 0.1  # between logits; 16-bit weights move small ones by a few hundredths
_MOST_OF_SPREAD = 0.01  # where that is more
Logits = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


class RoundTrip(Struct, frozen=True):
    """How near the GGUF is to the checkpoint."""

    texts: int
    tokenised_alike: int
    most_apart: float  # the largest difference between two logits, over texts that are tokenised alike


class Gap(Struct, frozen=True):
    """How far a text's logits lie apart at most, and how far they may."""

    apart: float
    allowed: float

    @property
    def share(self) -> float:
        """Of what is allowed; above 1 is too far, and so is a logit that is no finite number."""
        return self.apart / self.allowed if math.isfinite(self.apart) else math.inf


def gap(ours: Logits, theirs: Logits) -> Gap:
    """Compare one text's logits with the checkpoint's, by the bound that the module states."""
    spread = float(theirs.max() - theirs.min())
    with np.errstate(invalid="ignore"):  # inf - inf is told by `share`
        apart = float(np.abs(ours - theirs).max())
    return Gap(apart, max(_MOST_APART, _MOST_OF_SPREAD * spread))


def check(checkpoint: Path, gguf: Path, bodies: Sequence[str], *, wording: WordingName = "") -> RoundTrip:
    """Compare them on some of `bodies`.

    Raises:
        InputError: they differ by more than 16-bit weights explain.
    """
    step = max(1, len(bodies) // _TEXTS)
    texts = [words_of(body, wording).text for body in bodies[::step][:_TEXTS]]
    with Model(gguf) as model:
        theirs_ids, theirs = _by_transformers(checkpoint, texts, encodes=model.pools_to_labels)
        ours_ids = [
            (model.vocabulary.encode_whole(text) if model.pools_to_labels else model.vocabulary.encode(text))[
                :_MOST_TOKENS
            ]
            for text in texts
        ]
        alike = [at for at, ids in enumerate(ours_ids) if ids == theirs_ids[at]]
        found = _by_llama_cpp(model, [ours_ids[at] for at in alike])
    gaps = [gap(found[index], theirs[at]) for index, at in enumerate(alike)]
    apart = max((one.apart for one in gaps), default=0.0)
    outcome = RoundTrip(len(texts), len(alike), apart)
    if outcome.tokenised_alike < (1 - _MOST_FOREIGN) * outcome.texts:
        raise InputError(
            f"{gguf}: of {outcome.texts} texts {outcome.texts - outcome.tokenised_alike} are tokenised otherwise than "
            f"by {checkpoint}; it would not say what was trained"
        )
    worst = max(gaps, key=lambda one: one.share, default=None)
    if worst is not None and worst.share > 1:
        raise InputError(
            f"{gguf}: its logits differ from {checkpoint}'s by up to {worst.apart:.3f}, at most {worst.allowed:.3f} "
            "expected; llama.cpp's converter left something out (a pooler, perhaps: train a head over the mean)"
        )
    return outcome


def _by_transformers(checkpoint: Path, texts: Sequence[str], *, encodes: bool) -> tuple[list[list[int]], list[Logits]]:
    import torch  # noqa: PLC0415 - it takes seconds

    from quantize.pretrained import read_decoder  # noqa: PLC0415

    tokenizer = _tokenizer(checkpoint)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True  # what looks like a mark is an event's text, as at a gateway
    ids = [tokenizer.encode(text, add_special_tokens=encodes).ids[:_MOST_TOKENS] for text in texts]
    with torch.inference_mode():
        answer = _mean_pooled(checkpoint) if encodes else _last_of(read_decoder(checkpoint).eval())
        logits = [answer(torch.tensor([tokens])).float().numpy() for tokens in ids]
    return ids, logits


def _tokenizer(checkpoint: Path) -> Any:
    from tokenizers import Tokenizer  # noqa: PLC0415
    from transformers import AutoTokenizer  # noqa: PLC0415

    if (file := checkpoint / "tokenizer.json").is_file():
        return Tokenizer.from_file(str(file))
    return AutoTokenizer.from_pretrained(checkpoint, local_files_only=True).backend_tokenizer  # of a tokenizer.model


def _last_of(model: Any) -> Callable[..., Any]:
    return lambda tokens: model(input_ids=tokens).logits[0, -1]


def _mean_pooled(checkpoint: Path) -> Callable[..., Any]:
    """Return the checkpoint as llama.cpp is told to run it: its head over the mean of the tokens."""
    from safetensors.torch import load_file  # noqa: PLC0415

    from quantize.pretrained import read_encoder  # noqa: PLC0415

    encoder = read_encoder(checkpoint).eval()
    weights = load_file(checkpoint / "model.safetensors")
    head, bias = weights["classifier.weight"], weights["classifier.bias"]
    return lambda tokens: head @ encoder(input_ids=tokens).last_hidden_state[0].mean(dim=0) + bias


def _by_llama_cpp(model: Model, ids: Sequence[Sequence[int]]) -> list[Logits]:
    if model.pools_to_labels:
        lane = Encoder(model, rows=_MOST_TOKENS, sequences=1)
        return [lane.encode([tokens])[0] for tokens in ids]
    context = Context(model, cells=_MOST_TOKENS, rows=_MOST_TOKENS, sequences=1, attention="plain")
    logits = []
    for tokens in ids:
        batch = Batch(len(tokens))
        batch.token[:] = tokens
        batch.position[:] = np.arange(len(tokens))
        batch.wanted[-1] = 1
        logits.append(context.decode(batch, 0, len(tokens))[0].copy())
        context.forget(0, 0)
    return logits
