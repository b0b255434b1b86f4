"""What an examination of a centre says of what it found."""

from central.check import about_broker
from dataflows.connectors.uplink import LINE_BYTES
from dataflows.running.findings import Finding


def test_a_broker_that_takes_the_longest_verdict_is_ok() -> None:
    assert about_broker("broker:1883", LINE_BYTES) == Finding("mqtt", "ok", "broker:1883: lets us in")


def test_of_a_broker_that_takes_less_the_examination_says_how_much_and_what_to_do() -> None:
    found = about_broker("broker:1883", 131_000)

    assert found.state == "note"
    assert "takes 131000 bytes, wanted 1044480" in found.words
    assert "`max_packet_size`" in found.words
