"""GGUF files of a few hundred kilobytes with random weights, real enough for llama.cpp to run them."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from gguf import TokenType

from bench.random_models import Shape, Vocabulary, byte_level, write_decoder, write_encoder
from models.contracts.release import Prompt, Release, Roles
from models.contracts.task import Field, Label, Task
from models.heads import outputs_of
from models.roles import role_names

TASK = Task(
    name="soc-triage",
    instruction="Read one event from a log and answer with one label.",
    labels=(Label("benign", "routine"), Label("suspicious", "worth a look"), Label("critical", "an attack")),
    default_label="suspicious",
    fields_for=("suspicious", "critical"),
    fields=(
        Field(name="source", description="where from"),
        Field(name="technique", description="how", kind="choice", choices=("T1110", "T1190")),
        Field(name="observable", description="what to search for", max_values=3),
    ),
)
RELEASE = Release(
    name="tiny",
    number=3,
    task=TASK,
    prompt=Prompt(kind="plain", before=f"{TASK.instruction}\nEvent:", after="\nLabel:"),
)
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
DECODER = Shape(layers=2, width=64, heads=2, key_heads=1, hidden=128, context=1024)
ENCODER = Shape(layers=2, width=64, heads=2, key_heads=2, hidden=128, architecture="bert", context=512)
WORDS = ("benign", "suspicious", "critical", "Failed", "password", "for", "root", "from", "port", "sshd", "T11", "192")


def bytes_as_text() -> list[str]:
    """The 256 characters that byte-level BPE writes bytes with: printable ones as themselves, others from U+0100 on."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256))
    return [chr(byte) if byte in printable else chr(256 + next(others)) for byte in range(256)]


def vocabulary(words: Sequence[str] = WORDS) -> Vocabulary:
    """Single bytes, and each word with a space in front as one token, merged letter by letter."""
    alphabet = bytes_as_text()
    tokens, merges = dict.fromkeys(alphabet), dict[str, None]()
    for word in words:
        made = alphabet[32]
        for letter in word:
            merges[f"{made} {letter}"] = None
            made += letter
            tokens[made] = None
    whole = byte_level(list(tokens), list(merges))
    marks = ["<|im_start|>", "<|im_end|>", "[PAD7]"]
    types = [int(TokenType.CONTROL), int(TokenType.CONTROL), int(TokenType.USER_DEFINED)]
    return msgspec.structs.replace(
        whole, tokens=[*whole.tokens, *marks], types=[*whole.types, *types], chat_template=CHAT_TEMPLATE
    )


def tiny_decoder(path: Path, release: Release | None = RELEASE, words: Sequence[str] = WORDS, seed: int = 0) -> Path:
    """Write a decoder; without a release it is an instruct model."""
    write_decoder(path, DECODER, vocabulary(words), release, seed=seed)
    return path


def tiny_encoder(
    path: Path,
    labels: Sequence[str] = ("critical", "benign", "suspicious"),
    release: Release | None = None,
    seed: int = 0,
    *,
    carries_release: bool = True,
) -> Path:
    """Write an encoder whose head answers in an order that is not the task's."""
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [chr(code) for code in range(33, 127)]
    tokens = [*marks, *("\u2581" + letter for letter in letters), *letters, "\u2581root", "\u2581failed"]
    types = [int(TokenType.CONTROL)] * len(marks) + [int(TokenType.NORMAL)] * (len(tokens) - len(marks))
    encoder = Vocabulary(model="bert", tokens=tokens, types=types, pre="default")
    if release is None and carries_release:
        release = msgspec.structs.replace(RELEASE, prompt=Prompt(kind="encoder"))
    write_encoder(path, ENCODER, encoder, labels, release, seed=seed)
    return path


def tiny_reader(path: Path, seed: int = 1) -> Path:
    """Write an encoder that reads words, knows what is none of its labels, and has a layer for the copied fields."""
    names = role_names(TASK.fields)
    layer = np.random.default_rng(seed).normal(0, 1, (len(names), ENCODER.width + 1))
    release = msgspec.structs.replace(
        RELEASE,
        prompt=Prompt(kind="encoder", wording="words-1"),
        roles=Roles(names=names, weights=layer.astype("<f4").tobytes()),
    )
    return tiny_encoder(path, outputs_of(TASK)[::-1], release, seed)
