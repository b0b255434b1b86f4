import io

from rich.console import Console

from edge.view import Score, line, picture, printable
from models.contracts.policy import Route
from models.contracts.scalars import EventId
from models.contracts.verdict import Verdict


def verdict(number: int, label: str, text: str = "sshd: hello", route: Route = "accepted") -> Verdict:
    return Verdict(
        id=EventId(f"o.{number}"),
        text=text,
        label=label,
        confidence=0.9,
        probabilities={label: 0.9},
        label_mass=1.0,
        fields={},
        route=route,
        release="r-1",
        policy=1,
        source="syslog-tcp",
        received_at_ms=1000,
    )


def score() -> Score:
    score = Score(("benign", "suspicious", "critical"))
    score.sent, score.elapsed_s = 5, 2.0
    score.add([verdict(number, "benign") for number in range(3)], now_ms=1010)
    score.add([verdict(4, "critical", "[bold]rm -rf\x1b[2J\n", "review")], now_ms=1030)
    return score


def test_one_line_says_what_went_in_and_came_out() -> None:
    assert line(score()) == (
        "  2.0 s  5 in, 4 out (2/s)  3 benign, 0 suspicious, 1 critical  "
        "cache 0 answered, 4 asked, 0 of them to audit, 0 disagreed  latency 10 ms, p95 27 ms"
    )


def test_a_clock_that_steps_back_makes_no_negative_latency() -> None:
    late = Score(("benign",))
    late.add([verdict(1, "benign"), verdict(2, "benign")], now_ms=0)
    assert late.latency_ms() == (0.0, 0.0)


def test_the_picture_shows_an_event_as_text_whatever_it_contains() -> None:
    out = io.StringIO()
    Console(file=out, width=120, color_system=None).print(picture(score(), "demo"))
    shown = out.getvalue()
    assert "[bold]rm -rf·[2J·" in shown
    assert "\x1b" not in shown
    assert "accepted 3   review 1" in shown


def test_only_verdicts_that_are_not_the_mildest_are_shown_the_newest_first() -> None:
    shown = Score(("benign", "suspicious", "critical"))
    shown.add([verdict(1, "suspicious"), verdict(2, "benign"), verdict(3, "critical")], now_ms=1000)
    assert [each.id for each in shown.latest()] == ["o.3", "o.1"]


def test_control_characters_become_dots() -> None:
    assert printable("a\x1b[31mb\nc\x07\u202ed") == "a·[31mb·c··d"
