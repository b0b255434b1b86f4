"""The model's own byte-level BPE, and examples as the tokens that a decoder will meet."""

from collections.abc import Iterable, Sequence

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

_SPACE = "\u0120"  # how byte-level BPE writes it
_NEAR_BEFORE, _NEAR_BEHIND = 32, 8  # characters around a value that say what it is
_PIECE_WEIGHT = 3_000  # how often a forced piece is shown: enough to become one token


class Pointer(Struct, frozen=True):
    """A token of a copied value, and where in the event it stands."""

    asked_at: int  # the position that predicts it
    found_at: list[int]
    first: bool  # of its value


class Encoded(Struct, frozen=True):
    """One example: the prompt with the event, and the answer."""

    event: list[int]
    label: int
    rest: list[int]  # fields and end
    pointers: list[Pointer]
    taught: Sequence[float] = ()  # a second opinion on the label

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


def ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


def twins(tokenizer: Tokenizer) -> list[tuple[int, int]]:
    """Return the tokens that are a word with a space in front, each with the one that is the word alone."""
    number = tokenizer.get_vocab()
    return [(number[word], number[word[1:]]) for word in sorted(number) if word[0] == _SPACE and word[1:] in number]


def encode(tokenizer: Tokenizer, task: Task, prompt: Prompt, example: Example, max_event_tokens: int) -> Encoded:
    """Return the example piece by piece: joint tokenisation would differ from what a decoder forces.

    The space that ends `prompt.before` belongs to the event, as in `models.prompt`.
    """
    copied = [value for field in task.fields if field.kind != "choice" for value in example.fields.get(field.name, ())]
    text = f" {example.body}"
    before = ids(tokenizer, prompt.before.removesuffix(" "))
    shortened = _shortened(tokenizer, text, copied, max_event_tokens)
    event = [*before, *(token for token, _ in shortened), *ids(tokenizer, prompt.after)]
    label, *pieces = transcript_pieces(task, example.label, example.fields)
    rest: list[int] = []
    pointers: list[Pointer] = []
    for piece in pieces:
        value = piece.removeprefix(" ")
        encoding = tokenizer.encode(piece, add_special_tokens=False)
        if value in copied:
            starts = [at for at in range(len(text)) if text.startswith(value, at)]
            for number, (begin, end) in enumerate(encoding.offsets):
                # The space in front of the value is none of the event's.
                stands = [start + max(begin, 1) - 1 for start in starts] if end > 1 else []
                found = [
                    len(before) + at
                    for at, (_, (first, last)) in enumerate(shortened)
                    if any(first <= place < last for place in stands)
                ]
                if found:
                    pointers.append(Pointer(len(event) + len(rest) + number, found, first=number == 0))
        rest += encoding.ids
    return Encoded(event, ids(tokenizer, label)[0], rest, pointers)


def _shortened(tokenizer: Tokenizer, text: str, copied: Iterable[str], most: int) -> list[tuple[int, tuple[int, int]]]:
    """Return a text's tokens; of more than `most`, those around the copied values, and then both ends.

    An answer with values that are not there to be copied would teach to invent. As a decoder cuts, so does this
    else: who speaks stands at the front, and how it ended at the back.
    """
    encoding = tokenizer.encode(text, add_special_tokens=False)
    size = len(encoding.ids)
    if size <= most:
        return list(zip(encoding.ids, encoding.offsets, strict=True))
    kept: set[int] = set()
    for value in copied:
        begin = text.find(value)
        near = range(begin - _NEAR_BEFORE, begin + len(value) + _NEAR_BEHIND)
        kept.update(at for at, (first, last) in enumerate(encoding.offsets) if first < near.stop and last > near.start)
    from_both_ends = (end for pair in zip(range(size), reversed(range(size)), strict=True) for end in pair)
    while len(kept) < most:
        kept.add(next(from_both_ends))
    return [(encoding.ids[at], encoding.offsets[at]) for at in sorted(kept)]
