import io
import json
import logging

import pytest
import structlog

from dataflows.running import logs


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_decision_is_one_line_of_key_values_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEADWATER_LOG", raising=False)
    out = io.StringIO()
    logs.configure(out)
    structlog.get_logger().info("release_loaded", release="soc-triage-1", seconds=0.5)
    line = out.getvalue()
    assert line.startswith("at=20")
    assert line.endswith("Z level=info event=release_loaded release=soc-triage-1 seconds=0.5\n")


def test_json_is_one_object_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_LOG", "json")
    out = io.StringIO()
    logs.configure(out)
    structlog.get_logger().warning("sink_unavailable", sink="siem")
    assert json.loads(out.getvalue()) | {"at": ""} == {
        "event": "sink_unavailable",
        "sink": "siem",
        "level": "warning",
        "at": "",
    }


def test_colour_is_for_terminals_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEADWATER_LOG", raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    file, screen = io.StringIO(), Screen()
    for out in (file, screen):
        logs.configure(out)
        structlog.get_logger().info("policy_replaced", number=2)
    assert "\x1b[" not in file.getvalue()
    assert "\x1b[" in screen.getvalue()


def test_a_value_with_a_line_break_cannot_start_a_line_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_LOG", "plain")
    out = io.StringIO()
    logs.configure(out)
    structlog.get_logger().error("intake_unavailable", reason="first\nat=2026 event=forged")
    assert out.getvalue().count("\n") == 1


def test_what_the_library_of_retries_logs_at_debug_is_not_shown() -> None:
    out = io.StringIO()
    logs.configure(out)
    structlog.get_logger().log(logging.DEBUG, "noise")
    assert out.getvalue() == ""
