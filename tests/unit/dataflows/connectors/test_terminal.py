import io
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from structlog.testing import capture_logs

from dataflows.connectors.terminal import TerminalCarrier, line
from models.contracts import wire
from models.contracts.errors import UnavailableError
from tests.fakes.verdicts import verdict


def printed(*verdicts: Any) -> str:
    out = io.StringIO()
    TerminalCarrier(out).deliver([wire.encode(found) for found in verdicts])
    return out.getvalue()


def test_each_verdict_is_one_line_however_long_and_has_no_colour_where_no_terminal_is() -> None:
    shown = printed(verdict(text="short"), verdict(text="long " * 100, fields={"target": ("root",)}))

    first, second = shown.splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d critical   0\.95 accepted  web-1 short", first)
    assert second.endswith("long   target=root")
    assert "\x1b" not in shown


def test_a_terminal_gets_colour() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, color_system="standard")

    console.print(line(verdict()), soft_wrap=True)

    assert "\x1b[1;31mcritical" in console.file.getvalue()  # type: ignore[attr-defined]


@given(st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from("\x1b\x9b\r\n\b\u202e[")), max_size=50))
def test_no_text_steers_the_terminal(text: str) -> None:
    shown = printed(verdict(text=f"[bold]{text}:smile:", host=text, fields={"target": (text,)}))

    assert not set(shown[:-1]) & set("\x1b\x9b\r\n\b\u202e")
    assert "[bold]" in shown
    assert ":smile:" in shown


def test_a_reader_who_has_gone_is_said_once_and_what_follows_is_dropped() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "w") as out, capture_logs() as logged:
        carrier = TerminalCarrier(out)

        assert [carrier.deliver([wire.encode(verdict())] * 2) for _ in range(3)] == [(), (), ()]

    assert [entry["event"] for entry in logged] == ["terminal_unread"]


def test_an_output_that_takes_nothing_for_now_is_unavailable() -> None:
    out = Path("/dev/full").open("w")  # noqa: SIM115 - closing it fails too

    with pytest.raises(UnavailableError, match="terminal: No space left on device"):
        TerminalCarrier(out).deliver([wire.encode(verdict())])

    with pytest.raises(OSError, match="No space left"):
        out.close()
