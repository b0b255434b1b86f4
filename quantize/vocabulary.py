"""The model's own byte-level BPE, and examples as the tokens that a decoder will meet."""

from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from models.contracts.errors import InputError
from models.contracts.release import Prompt
from models.contracts.task import Task
from models.fields import field_literal, transcript_pieces
from quantize.expand import Example

SIZE = 4_096
END_OF_TEXT = "<|endoftext|>"
"""The one control token. It is no entry of the BPE, so no text can spell it; its id is the last one."""

_PIECE_WEIGHT = 3_000  # how often a forced piece is shown: enough to become one token


class Encoded(Struct, frozen=True):
    """One example: the prompt with the event, and the answer."""

    event: list[int]
    label: int
    rest: list[int]  # fields and end

    @property
    def tokens(self) -> list[int]:
        return [*self.event, self.label, *self.rest]


def train_vocabulary(texts: Iterable[str], task: Task, prompt: Prompt) -> Tokenizer:
    """Learn the merges from `texts`; every label becomes one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    forced = [f" {name}" for name in task.label_names] + [field_literal(field) for field in task.fields]
    forced += [prompt.before.rstrip(), prompt.after]
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE - 1, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([*(f" {text}" for text in texts), *(forced * _PIECE_WEIGHT)], trainer)
    for name in task.label_names:
        if len(ids(tokenizer, f" {name}")) != 1:
            raise InputError(f"label `{name}`: {len(ids(tokenizer, f' {name}'))} tokens, one wanted")
    return tokenizer


def read_vocabulary(path: Path) -> Tokenizer:
    return Tokenizer.from_file(str(path))


def ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


def encode(tokenizer: Tokenizer, task: Task, prompt: Prompt, example: Example, max_event_tokens: int) -> Encoded:
    """Return the example piece by piece: joint tokenisation would differ from what a decoder forces.

    The space that ends `prompt.before` belongs to the event, as in `models.prompt`.
    """
    event = ids(tokenizer, f" {example.body}")
    if len(event) > max_event_tokens:
        # Both ends, as a decoder cuts: who speaks stands at the front, and how it ended at the back.
        event = event[: max_event_tokens - max_event_tokens // 2] + event[len(event) - max_event_tokens // 2 :]
    label, *rest = transcript_pieces(task, example.label, example.fields)
    return Encoded(
        event=[*ids(tokenizer, prompt.before.removesuffix(" ")), *event, *ids(tokenizer, prompt.after)],
        label=ids(tokenizer, label)[0],
        rest=[token for piece in rest for token in ids(tokenizer, piece)],
    )
