from pathlib import Path

from dataflows.connectors import cef, rfc5424
from tests.fakes.verdicts import verdict

GUIDE = Path(__file__).parents[4] / "docs" / "guides" / "outputs.md"


def test_the_guide_shows_what_is_really_written() -> None:
    shown = GUIDE.read_text(encoding="utf-8")
    found = verdict(fields={"target": ("root",)})

    assert rfc5424.message(found, rfc5424.Rfc5424(gateway="edge-7")).decode() in shown
    assert cef.message(found, cef.Cef(gateway="edge-7")).decode() in shown
