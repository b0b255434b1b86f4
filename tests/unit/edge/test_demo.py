import io
from pathlib import Path

import msgspec
from rich.console import Console

from dataflows.running.harvest import Harvest
from edge.demo import EVENTS, SAMPLE, Sender, deal, sample, summary
from models.contracts.scalars import EventId
from models.contracts.verdict import Verdict
from models.contracts.wire import encode_lines

TEMPLATE = Verdict(
    id=EventId("o.1"),
    text="<14>a",
    label="benign",
    confidence=0.9,
    probabilities={"benign": 0.9},
    label_mass=1.0,
    fields={},
    route="accepted",
    release="r-1",
    policy=1,
    source="syslog-tcp",
    received_at_ms=0,
)


def verdict(number: int, text: str, source: str = "syslog-tcp") -> Verdict:
    return msgspec.structs.replace(TEMPLATE, id=EventId(f"o.{number}"), text=text, source=source)


def counted(directory: Path, *verdicts: Verdict) -> tuple[int, list[str]]:
    """What the demo says of two events over TCP and one over UDP, when these verdicts came out."""
    path = directory / "verdicts.jsonl"
    path.write_bytes(encode_lines(verdicts))
    harvest = Harvest(path)
    harvest.gather()
    out = io.StringIO()
    senders = [
        Sender("syslog-tcp", [b"<14>a", b"<14>b"], lambda _: None),
        Sender("syslog-udp", [b"<14>a"], lambda _: None),
    ]
    code = summary(Console(file=out, highlight=False), senders, harvest)
    return code, out.getvalue().splitlines()


ALL = (verdict(1, "<14>a"), verdict(2, "<14>b"), verdict(3, "<14>a", "syslog-udp"))


def test_all_of_it_answered_once_is_the_only_way_to_exit_0(tmp_path: Path) -> None:
    assert counted(tmp_path, *ALL) == (0, ["3 events in, 3 verdicts out, 0 lost"])
    assert counted(tmp_path, *ALL, ALL[0]) == (0, ["3 events in, 3 verdicts out, 0 lost"])


def test_what_is_missing_is_lost_on_the_way_it_took(tmp_path: Path) -> None:
    assert counted(tmp_path, *ALL[:2]) == (
        1,
        ["lost on the way through syslog-udp: 1", "3 events in, 2 verdicts out, 1 lost"],
    )


def test_a_verdict_on_another_text_does_not_make_up_for_one_that_is_missing(tmp_path: Path) -> None:
    code, said = counted(tmp_path, *ALL[:2], verdict(3, "<14>c", "syslog-udp"))
    assert code == 1
    assert said[-1] == "3 events in, 3 verdicts out, 1 lost"


def test_two_ids_for_one_event_are_no_success(tmp_path: Path) -> None:
    code, said = counted(tmp_path, *ALL, verdict(4, "<14>a"))
    assert code == 1
    assert said == ["verdicts on what nobody sent: 1", "3 events in, 4 verdicts out, 0 lost"]


def test_the_sample_is_long_and_varied_enough() -> None:
    lines = SAMPLE.read_bytes().splitlines()
    assert len(set(lines)) == len(lines) >= 2000


def test_what_is_sent_is_dealt_out_whole() -> None:
    lines = sample()
    assert len(lines) == EVENTS
    for mqtt, ways in ((0, 3), (1883, 4)):
        senders = deal(lines, 1, 2, mqtt)
        assert len(senders) == ways
        assert sum(len(sender.lines) for sender in senders) == len(lines)
