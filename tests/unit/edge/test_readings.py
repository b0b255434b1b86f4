from dataflows.operators.decode import Reading
from edge.config import Config, Gateway, Mqtt, Uplink
from edge.readings import readings


def test_what_comes_by_the_uplink_are_answers_on_our_own_events() -> None:
    devices = Mqtt(name="devices", topics=("a",), text_path="a.b")
    config = Config(gateway=Gateway(name="gw-1"), sources=(devices,), uplink=Uplink())

    assert readings(config) == {
        "answers": Reading(kind="answers", gateway="gw-1"),
        "devices": Reading(gateway="gw-1", text_path="a.b"),
    }


def test_without_an_uplink_there_are_no_answers() -> None:
    assert readings(Config()) == {}
