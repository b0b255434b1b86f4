"""Verdicts as lines for a person to read; coloured where a terminal is, and never steered by an event's text."""

import os
import re
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import TextIO

import structlog
from rich.console import Console
from rich.text import Text

from dataflows.connectors.courier import Refusal
from models.contracts import wire
from models.contracts.errors import UnavailableError
from models.contracts.verdict import Verdict

log = structlog.get_logger()

_STYLES = {"critical": "bold red", "suspicious": "yellow", "benign": "green"}
_OTHER_STYLE = "cyan"
_ROUTE_STYLES = {"accepted": "dim"}
# Escape sequences could repaint the screen, and directional marks could reorder a line (CVE-2021-42574).
_STEERING = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


class _Console(Console):
    def on_broken_pipe(self) -> None:
        # Rich would end the process here. We are called where the exception is handled, so this hands it on.
        raise  # noqa: PLE0704


class TerminalCarrier:
    """Prints payloads, each a verdict as JSON, one line each."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._console = _Console(
            file=out if out is not None else sys.stdout, highlight=False, emoji=False, markup=False
        )
        self._read = True  # somebody may be looking

    def deliver(self, payloads: Sequence[bytes]) -> Sequence[Refusal]:
        if not self._read:
            return ()
        try:
            for payload in payloads:
                self._console.print(line(wire.decode_verdict(payload)), soft_wrap=True)
            self._console.file.flush()
        except BrokenPipeError:
            self._drop()
        except OSError as error:
            raise UnavailableError(
                f"terminal: {error.strerror or error}; what is to be shown waits; remove this output if nobody looks"
            ) from error
        return ()

    def _drop(self) -> None:
        """Take everything from now on and show nothing: a pipe whose reader has gone has none ever again."""
        self._read = False
        log.warning("terminal_unread", reason="nobody reads standard output any more", action="drops what it is given")
        # What is still buffered goes nowhere when the interpreter flushes it.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._console.file.fileno())
        os.close(nowhere)

    def close(self) -> None:
        """Leave the stream open: it is the process's."""


def line(verdict: Verdict) -> Text:
    """Return one line: local time, label, confidence, route, host, text and fields."""
    label_style = _STYLES.get(verdict.label, _OTHER_STYLE)
    at = datetime.fromtimestamp(verdict.received_at_ms / 1000).astimezone()
    shown = Text.assemble(
        (f"{at:%H:%M:%S} ", "dim"),
        (f"{verdict.label:<10} ", label_style),
        f"{verdict.confidence:.2f} ",
        (f"{verdict.route:<9} ", _ROUTE_STYLES.get(verdict.route, "magenta")),
    )
    if verdict.host:
        shown.append(f"{_still(verdict.host)} ", "blue")
    shown.append(_still(verdict.text))
    for name, values in verdict.fields.items():
        shown.append(f"  {name}=", "dim").append(_still(", ".join(values)), label_style)
    return shown


def _still(text: str) -> str:
    return _STEERING.sub("\ufffd", text)
