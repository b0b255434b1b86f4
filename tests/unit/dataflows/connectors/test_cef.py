import re

from hypothesis import given
from hypothesis import strategies as st

from dataflows.connectors.cef import Cef, message
from models.contracts.verdict import Verdict
from tests.fakes.verdicts import any_verdict, verdict

STYLE = Cef(gateway="edge-7")
_KEY = re.compile(r"(?:^| )(\w+)=")


def parse(raw: bytes) -> tuple[str, list[str], dict[str, str]]:
    """Syslog header, CEF header fields and extension, by ArcSight's rules: a value ends where the next key begins."""
    syslog, _, rest = raw.decode().partition(" CEF:")
    parts = re.split(r"(?<!\\)((?:\\\\)*)\|", rest, maxsplit=7)
    header = [parts[n] + parts[n + 1] for n in range(0, 14, 2)]
    assert len(parts) == 15, raw
    extension = parts[14]
    keys = [found for found in _KEY.finditer(extension) if not _escaped(extension, found.end() - 1)]
    ends = [found.start() for found in keys[1:]] + [len(extension)]
    values = {key[1]: extension[key.end() : end] for key, end in zip(keys, ends, strict=True)}
    return (
        syslog,
        [re.sub(r"\\([\\|])", r"\1", part) for part in header],
        {key: _plain(value) for key, value in values.items()},
    )


def _escaped(text: str, at: int) -> bool:
    before = text[:at]
    return (len(before) - len(before.rstrip("\\"))) % 2 == 1


def _plain(value: str) -> str:
    return re.sub(r"\\([\\=nr])", lambda found: {"n": "\n", "r": "\r"}.get(found[1], found[1]), value)


def blanked(text: str) -> str:
    return re.sub(r"[\x00-\x09\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029]", " ", text)


def test_a_verdict_is_written_as_documented() -> None:
    assert message(verdict(text="a=b|c\\d\nnext", fields={"target": ("root",)}), STYLE).decode() == (
        "<106>Nov 14 22:13:20 edge-7 CEF:0|Headwater|Headwater|1|critical|critical event|10|"
        "rt=1700000000123 externalId=o.1 dvchost=web-1 deviceProcessName=sshd act=accepted cat=critical "
        "cfp1Label=confidence cfp1=0.9500 cfp2Label=labelMass cfp2=0.9900 cn1Label=policy cn1=1 "
        'cs1Label=release cs1=soc-triage-1 cs2Label=source cs2=hosts cs3Label=fields cs3={"target":["root"]} '
        "msg=a\\=b|c\\\\d\\nnext"
    )


@given(any_verdict())
def test_what_is_written_can_be_read_back(found: Verdict) -> None:
    syslog, header, extension = parse(message(found, Cef(gateway="edge-7", max_bytes=1 << 20)))

    assert re.fullmatch(r"<\d{1,3}>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d edge-7", syslog)
    assert header[1:6] == ["Headwater", "Headwater", "1", found.label, f"{found.label} event"]
    assert extension["msg"] == blanked(found.text)
    assert extension["externalId"] == blanked(found.id)
    assert extension.get("cs4") == (None if found.topic is None else blanked(found.topic))
    assert extension.get("dvchost") == (None if found.host is None else blanked(found.host))
    assert extension.get("start") == (None if found.occurred_at_ms is None else str(found.occurred_at_ms))


@given(any_verdict(), st.integers(500, 900))
def test_a_message_is_never_longer_than_its_limit_unless_its_head_is(found: Verdict, limit: int) -> None:
    raw = message(found, Cef(gateway="edge-7", max_bytes=limit))

    text = parse(raw)[2]["msg"]
    assert blanked(found.text).startswith(text)
    assert len(raw) <= limit or text == ""


@given(st.text(max_size=300))
def test_no_text_can_forge_a_key_or_a_second_line(text: str) -> None:
    raw = message(verdict(text=f"{text} act=dropped", host=f"{text} cat=benign"), STYLE)

    extension = parse(raw)[2]
    assert (extension["act"], extension["cat"]) == ("accepted", "critical")
    assert re.search(rb"[\x00-\x1f]", raw) is None


def test_a_label_without_a_severity_weighs_little() -> None:
    syslog, header, _ = parse(message(verdict(label="benign"), STYLE))

    assert (syslog[:5], header[6]) == ("<110>", "2")


def test_the_header_names_the_gateway_that_saw_the_event_where_the_verdict_knows_it() -> None:
    at_the_centre = Cef(gateway="centre")

    def named(found: Verdict) -> str:
        return parse(message(found, at_the_centre))[0].rpartition(" ")[2]

    assert named(verdict(gateway="edge-9", revision=1000)) == "edge-9"
    assert named(verdict(gateway=None)) == "centre"
