"""What commands share at a terminal: sentences for what went wrong, strangers' text made harmless, width and colour."""

import logging
import os
import sys
from collections.abc import Iterable
from typing import Any

import click
import structlog
from rich.console import Console, RenderableType
from rich.text import Text

from models.contracts.errors import HeadwaterError, UnavailableError

BAD_INPUT, UNAVAILABLE, INTERRUPTED, READER_GONE = 2, 1, 130, 141  # 128 + SIGINT and 128 + SIGPIPE
_COLUMNS = 120  # where there is no terminal


class Sentences(click.Command):
    """Prints what a person can mend as one sentence, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except HeadwaterError as error:
            click.echo(f"quantize: {error}", err=True)
            ctx.exit(UNAVAILABLE if isinstance(error, UnavailableError) else BAD_INPUT)
        except KeyboardInterrupt:
            click.echo("quantize: interrupted", err=True)
            ctx.exit(INTERRUPTED)
        except BrokenPipeError:
            # Whoever read us has had enough. What is still buffered goes nowhere when the interpreter flushes it.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(READER_GONE)


def say_warnings_only() -> None:
    """Keep llama.cpp's many lines off: it says a lot at debug, and standard output is for results."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def results() -> Console:
    """Return where results go: standard output, in colour and as wide as it is where that is a terminal."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_COLUMNS)


def show(parts: Iterable[RenderableType]) -> None:
    """Write tables and sentences, one after the other; a sentence is wrapped by the terminal alone."""
    console = results()
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, Text))


def visible(text: str) -> str:
    r"""Return a text that a stranger wrote as a terminal may show it: what cannot be printed becomes its escape.

    A terminal obeys control characters, and marks that change the direction of writing hide what stands there; so an
    escape sequence reads `\x1b[2J`, and a line end `\n`.
    """
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)
