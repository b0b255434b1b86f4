"""What a run says while it works: lines that stay, and on a terminal a bar with an estimate."""

import sys
import time
from collections.abc import Callable
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

_SECONDS_BETWEEN_LINES = 60.0  # where there is no terminal


class Progress:
    """Lines and bars on standard error; standard output is the results'."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def tell(self, line: str) -> None:
        """Write a line that stays."""
        if self._console.is_terminal:
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)
        else:
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()

    def bar(self, what: str) -> Callable[[int, int], None]:
        """Return what is to be called with how many of how many are done."""
        bar = self._bars.add_task(what, total=None, visible=True)
        first: tuple[int, float] | None = None  # what is gone on with begins with what was done in another sitting
        said = 0.0

        def tick(done: int, of: int) -> None:
            nonlocal first, said
            self._bars.update(bar, completed=done, total=of, visible=done < of)
            now = time.monotonic()
            if first is None:
                first, said = (done, now), now
            before, begun = first
            if not self._console.is_terminal and now - said >= _SECONDS_BETWEEN_LINES and before < done < of:
                said = now
                left = (now - begun) / (done - before) * (of - done)
                self.tell(f"  {what}: {done} of {of}, about {left / 60:.0f} min left")

        return tick
