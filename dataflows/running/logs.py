"""One structured line per decision on standard error: a name and key-values, never an event's text.

`HEADWATER_LOG=json` writes JSON lines, `HEADWATER_LOG=plain` key=value; without it, colour on a terminal and
key=value elsewhere, where the journal adds its own time stamp beside ours.
"""

import logging
import os
import sys
from contextlib import suppress
from typing import TextIO, cast

import structlog
from structlog.typing import Processor


def configure(stream: TextIO | None = None, *, least: int = logging.INFO) -> None:
    """Send what is logged in this process at level `least` and above to `stream`, standard error by default."""
    out = stream if stream is not None else sys.stderr
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
            structlog.processors.format_exc_info,
            _renderer(os.environ.get("HEADWATER_LOG", ""), on_terminal=out.isatty()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", _Unfailing(out))),
        cache_logger_on_first_use=False,  # a library may have taken its logger before we came here
    )


class _Unfailing:
    """A line that cannot be written, on a full disk or to a reader that is gone, must not stop who says it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


def _renderer(wanted: str, *, on_terminal: bool) -> Processor:
    if wanted == "json":
        return structlog.processors.JSONRenderer()
    if on_terminal and wanted != "plain" and "NO_COLOR" not in os.environ:
        return structlog.dev.ConsoleRenderer(colors=True)
    return structlog.processors.LogfmtRenderer(
        key_order=["at", "level", "event"], drop_missing=True, bool_as_flag=False
    )
