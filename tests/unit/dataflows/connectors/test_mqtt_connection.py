"""The payload that breaks a connection is found, and one that was only there when a broker restarted is not blamed."""

from dataflows.connectors.mqtt_connection import Suspects


def test_one_break_is_a_restart_and_changes_nothing() -> None:
    suspects = Suspects()
    suspects.broke([b"a", b"b"])

    assert not suspects.one_by_one


def test_a_payload_that_breaks_the_connection_alone_five_times_in_a_row_is_refused() -> None:
    suspects = Suspects()
    suspects.broke([b"a", b"b"])
    suspects.broke([b"a", b"b"])
    assert suspects.one_by_one

    for _ in range(5):
        assert suspects.reason_against(b"b") == ""
        suspects.broke([b"b"])

    assert "broke 5 times" in suspects.reason_against(b"b")
    assert suspects.reason_against(b"a") == ""


def test_a_delivery_that_goes_well_clears_everybody() -> None:
    suspects = Suspects()
    for _ in range(7):
        suspects.broke([b"b"])
    suspects.went_well()

    assert not suspects.one_by_one
    assert suspects.reason_against(b"b") == ""
