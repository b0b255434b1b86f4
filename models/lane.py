"""One thread's work on a decoder: the logits behind many texts, and a transcript behind one.

Two contexts share the model's weights. llama.cpp's flash attention is fast on a CPU from 64 rows on and slow below, so
a backlog is read with it, tile by tile, and few rows, transcripts among them, without (docs/adr/0013).
"""

from collections.abc import Iterator, Sequence

from models.llama import Batch, Context, Logits, Model
from models.scribe import Scribe
from models.transcript import Transcript
from models.window import TILE_ROWS, Int32s, rows_of, stretches

WINDOW_TEXTS = 64


class Lane:
    """Two contexts that hold the instruction, for one thread."""

    def __init__(self, model: Model, before: Sequence[int], cells: int) -> None:
        # The last stretch of a window is up to two tiles long.
        rows, sequences = 2 * TILE_ROWS, WINDOW_TEXTS + 1
        self._few = Context(model, cells=cells, rows=rows, sequences=sequences, attention="plain")
        self._many = Context(model, cells=cells, rows=rows, sequences=sequences, attention="flash")
        self._few.keep(before)
        self._many.keep(before)
        self._scribe = Scribe(self._few)

    @property
    def decoded(self) -> int:
        """Tokens that were decoded since it was opened, the instruction's among them."""
        return self._few.decoded + self._many.decoded

    def read(self, texts: Sequence[Int32s]) -> Iterator[tuple[int, Logits]]:
        """Yield the logits behind texts that are sorted, distinct and not empty, a stretch of them at a time.

        Each stretch comes with the number of its first text; its logits are valid until the next is asked for.
        """
        for begin in range(0, len(texts), WINDOW_TEXTS):
            for first, logits in self._read_window(texts[begin : begin + WINDOW_TEXTS]):
                yield begin + first, logits

    def write(self, text: Sequence[int], transcript: Transcript) -> None:
        """Let the model write a transcript behind a text."""
        self._scribe.write(text, transcript)

    def _read_window(self, texts: Sequence[Int32s]) -> Iterator[tuple[int, Logits]]:
        rows = rows_of(texts)
        total = len(rows.token)
        context = self._many if total >= TILE_ROWS else self._few
        self._scribe.forget()
        batch = Batch(total)
        batch.token[:] = rows.token
        batch.position[:] = rows.depth + context.kept
        batch.first[:] = rows.first + 1
        batch.count[:] = rows.count
        batch.wanted[rows.ends] = 1
        read = 0
        try:
            for begin, end in stretches(total):
                logits = context.decode(batch, begin, end)
                yield read, logits
                # Room is made at once: attention pays for each cell in use, whoever's it is.
                for text in range(read, read + len(logits)):
                    context.forget(text + 1)
                read += len(logits)
        finally:
            for text in range(read, len(texts)):
                context.forget(text + 1)
