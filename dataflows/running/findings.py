"""What an examination found, part by part: a table on a terminal, a line each elsewhere."""

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct
from rich.console import Console
from rich.table import Table
from rich.text import Text

_STYLES = {"ok": "green", "note": "yellow", "problem": "bold red"}


class Finding(Struct, frozen=True):
    """One thing that was examined."""

    part: str
    state: Literal["ok", "note", "problem"]
    words: str


def show(findings: Sequence[Finding]) -> int:
    """Print findings and what they come to; return the exit code: 1 where there is a problem."""
    console = Console(highlight=False, soft_wrap=True)
    if console.is_terminal:
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        for finding in findings:
            table.add_row(Text(finding.state, _STYLES[finding.state]), finding.part, Text(finding.words))
        console.print(table)
    else:  # a finding a line, however long
        width = max(len(finding.part) for finding in findings)
        for finding in findings:
            console.print(f"{finding.state:7}  {finding.part:{width}}  {finding.words}", markup=False)
    problems = sum(finding.state == "problem" for finding in findings)
    console.print("everything works" if not problems else f"{problems} problem{'s' if problems > 1 else ''}")
    return 1 if problems else 0
