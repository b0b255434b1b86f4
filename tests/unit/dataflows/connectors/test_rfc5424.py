import re
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from dataflows.connectors.rfc5424 import Rfc5424, message, timestamp
from models.contracts.scalars import EventId
from models.contracts.verdict import Verdict
from tests.fakes.verdicts import any_verdict, verdict

STYLE = Rfc5424(gateway="edge-7")
_MESSAGE = re.compile(
    r"<(\d{1,3})>1 (\S+) (\S{1,255}) (\S{1,48}) (\S{1,128}) (\S{1,32}) "
    r'\[([^ =\]"]{1,32})((?: [^ =\]"]{1,32}="(?:[^"\\\]]|\\["\\\]])*")*)\] (.*)',
    re.DOTALL,
)
_PARAMETER = re.compile(r' ([^ =\]"]{1,32})="((?:[^"\\\]]|\\["\\\]])*)"')


def parse(raw: bytes) -> tuple[list[str], dict[str, str], str]:
    """Header fields, parameters and text, by the grammar of RFC 5424 section 6."""
    found = _MESSAGE.fullmatch(raw.decode())
    assert found, raw
    parameters = {name: re.sub(r'\\(["\\\]])', r"\1", value) for name, value in _PARAMETER.findall(found[8])}
    return [found[n] for n in range(1, 8)], parameters, found[9]


def blanked(text: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", " ", text)


def test_a_verdict_is_written_as_documented() -> None:
    assert message(verdict(text='Failed "su" [x]', fields={"target": ("root",)}), STYLE).decode() == (
        "<106>1 2023-11-14T22:13:20.123Z edge-7 headwater - critical "
        '[verdict@32473 id="o.1" label="critical" confidence="0.9500" mass="0.9900" route="accepted" '
        'release="soc-triage-1" policy="1" source="hosts" host="web-1" app="sshd" '
        'fields="{\\"target\\":[\\"root\\"\\]}"] Failed "su" [x]'
    )


@given(any_verdict())
def test_what_is_written_can_be_read_back(found: Verdict) -> None:
    raw = message(found, Rfc5424(gateway="edge-7", max_bytes=1 << 20))

    header, parameters, text = parse(raw)

    assert header[1:] == [timestamp(found.received_at_ms), "edge-7", "headwater", "-", found.label, "verdict@32473"]
    assert text == blanked(found.text)
    assert parameters["id"] == blanked(found.id)
    assert parameters.get("host") == (None if found.host is None else blanked(found.host))
    assert parameters.get("topic") == (None if found.topic is None else blanked(found.topic))
    assert parameters.get("app") == (None if found.app is None else blanked(found.app))
    assert ("truncated" in parameters, "replaced" in parameters) == (found.truncated, found.replaced)


@given(any_verdict(), st.integers(400, 900))
def test_a_message_is_never_longer_than_its_limit_unless_its_head_is_and_is_marked_when_cut(
    found: Verdict, limit: int
) -> None:
    raw = message(found, Rfc5424(gateway="edge-7", max_bytes=limit))

    _, parameters, text = parse(raw)

    whole = blanked(found.text)
    assert whole.startswith(text)
    assert len(raw) <= limit or text == ""
    assert text == whole or parameters["truncated"] == "true"


@given(st.text(max_size=300))
def test_no_text_can_forge_structured_data_or_a_second_line(text: str) -> None:
    raw = message(verdict(text=text, host=text), STYLE)

    assert re.search(rb"[\x00-\x1f]", raw) is None
    assert parse(raw)[1]["label"] == "critical"


@given(st.integers(0, 253_402_300_799_999))
def test_a_time_stamp_can_be_read_back(millis: int) -> None:
    found = datetime.strptime(timestamp(millis), "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)

    assert round(found.timestamp() * 1000) == millis


def test_a_label_without_a_severity_is_informational_and_an_odd_name_stays_one_word() -> None:
    header, _, _ = parse(message(verdict(label="needs a look", id=EventId("o.2")), Rfc5424(gateway="kälte kammer")))

    assert header == [
        "110",
        "2023-11-14T22:13:20.123Z",
        "k_lte_kammer",
        "headwater",
        "-",
        "needs_a_look",
        "verdict@32473",
    ]
