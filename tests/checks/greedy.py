"""Fields written the long way: greedy, token by token, each from a prompt decoded from nothing."""

from collections.abc import Sequence

import numpy as np

from models.llama import Batch, Context, Model
from models.transcript import FieldProgram
from tests.fakes.tiny_models import RELEASE

CLOSE = 0.05  # logits; where two words are as good as equal, the last bits decide, and those differ with the batch


def greedy_fields(
    model: Model, prompt: Sequence[int], text: str
) -> tuple[tuple[dict[str, tuple[str, ...]], int], float]:
    """Return a transcript's values behind a prompt and the answer, and by how much the closest word won."""
    vocabulary = model.vocabulary
    program = FieldProgram(RELEASE.task, vocabulary.encode, vocabulary.token_of_piece, vocabulary.pieces)
    transcript, tokens = program.begin(text), list(prompt)
    context = Context(model, cells=1024, rows=512, sequences=1, attention="plain")
    closest = float("inf")
    while not transcript.done:
        allowed = np.array(transcript.allowed())
        if len(allowed) > 1:
            context.forget(0, 0)
            batch = Batch(len(tokens))
            batch.token[:], batch.position[:] = tokens, np.arange(len(tokens))
            batch.wanted[-1] = 1
            row = context.decode(batch, 0, len(tokens))[0][allowed]
            closest = min(closest, float(np.diff(np.sort(row)[-2:])[0]))
            allowed = allowed[[int(row.argmax())]]
        tokens.append(int(allowed[0]))
        transcript.advance(tokens[-1])
    context.close()
    return transcript.values(), closest
