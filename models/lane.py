"""One thread's work on a decoder: the logits behind many texts, and a transcript behind one.

Two contexts share the model's weights. Behind a long instruction llama.cpp's flash attention is fast on a CPU from 64
rows on and slow below, so a backlog is read with it, tile by tile, and few rows, transcripts among them, without. Where
there is little to attend to, it is the faster one for any number of rows (docs/adr/0013).
"""

from collections.abc import Generator, Sequence

from msgspec import Struct

from models.llama import Batch, Context, Logits, Model
from models.scribe import Job, Scribe
from models.transcript import Transcript
from models.window import TILE_ROWS, Int32s, rows_of, stretches

WINDOW_TEXTS = 64


class Stretch(Struct, frozen=True):
    """The logits behind texts `first`, `first + 1`, …; valid, as the texts in the context are, until the next one."""

    first: int
    logits: Logits
    scribe: Scribe
    lengths: list[int]
    sequence: int  # of the first text
    room: int  # cells that are free

    def write(
        self, places: Sequence[int], labels: Sequence[tuple[int, ...]], begun: Sequence[Transcript]
    ) -> list[Transcript]:
        """Let the model write transcripts behind some of these texts and their labels; return them written."""
        jobs = [
            Job(self.sequence + place, self.lengths[place], label, transcript)
            for place, label, transcript in zip(places, labels, begun, strict=True)
        ]
        return self.scribe.write(jobs, self.room)


class Lane:
    """Contexts that hold the instruction, for one thread."""

    def __init__(self, model: Model, before: Sequence[int], cells: int) -> None:
        # The last stretch of a window is up to two tiles long.
        rows, sequences = 2 * TILE_ROWS, WINDOW_TEXTS + 1
        self._many = self._few = Context(model, cells=cells, rows=rows, sequences=sequences, attention="flash")
        if len(before) >= TILE_ROWS:
            self._few = Context(model, cells=cells, rows=rows, sequences=sequences, attention="plain")
        self._scribes = {context: Scribe(context) for context in (self._few, self._many)}
        for context in self._scribes:
            context.keep(before)

    @property
    def decoded(self) -> int:
        """Tokens that were decoded since it was opened, the instruction's among them."""
        return sum(context.decoded for context in self._scribes)

    def read(self, texts: Sequence[Int32s]) -> Generator[Stretch, None, None]:
        """Yield what is behind texts that are sorted, distinct and not empty; close it, so that they are forgotten."""
        for begin in range(0, len(texts), WINDOW_TEXTS):
            yield from self._read_window(texts[begin : begin + WINDOW_TEXTS], begin)

    def _read_window(self, texts: Sequence[Int32s], number: int) -> Generator[Stretch, None, None]:
        rows = rows_of(texts)
        total = len(rows.token)
        lengths = [len(text) for text in texts]
        context = self._many if total >= TILE_ROWS else self._few
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
                last = read + len(logits)
                # In use are at most this stretch, and before it what texts to come share: a path of the tree.
                room = context.cells - context.kept - (end - begin) - max(lengths)
                yield Stretch(number + read, logits, self._scribes[context], lengths[read:last], read + 1, room)
                # Room is made at once: attention pays for each cell in use, whoever's it is.
                for text in range(read, last):
                    context.forget(text + 1)
                read = last
        finally:
            for text in range(read, len(texts)):
                context.forget(text + 1)
