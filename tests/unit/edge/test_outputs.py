from pathlib import Path
from threading import Event

import msgspec
import pytest
from bytewax.testing import TestingSource

from dataflows.cache.verdict_cache import VerdictCache
from dataflows.observer import Unobserved
from dataflows.operators.repeats import Repeats
from dataflows.triage import triage
from edge.config import Config, Gateway, SyslogOutput, Terminal, Uplink
from edge.outputs import dead_letter_sink, outlets, uplink_sink
from models.classifier import Classifier, Current
from models.contracts.policy import Policy
from models.contracts.verdict import CENTRAL
from models.contracts.wire import decode_verdict
from tests.fakes.classifier import ScriptedClassifier
from tests.fakes.syslog_receiver import Receiver
from tests.fakes.verdicts import verdict

NAMES = ("siem", "siem-keyed", "siem-routes", "siem.example", "siem-example", "dead_letters", "records")


def test_outputs_may_be_called_anything_and_each_is_a_step_of_its_own(tmp_path: Path) -> None:
    outputs = tuple(Terminal(name=name) for name in NAMES)
    config = Config(gateway=Gateway(state_dir=str(tmp_path)), outputs=outputs)
    letters = dead_letter_sink(config, Event(), Unobserved())
    found = outlets(config, {}, Event(), Unobserved(), letters)
    classifier: Current[Classifier] = Current(ScriptedClassifier())
    triage(
        TestingSource([]),
        classifier,
        Current(Policy()),
        found,
        letters,
        readings={},
        repeats=Repeats(),
        cache=VerdictCache(b"secret"),
        window_events=64,
        wait=lambda _seconds: False,
        observer=Unobserved(),
    )
    assert len({outlet.name for outlet in found}) == len(NAMES)


@pytest.mark.parametrize(
    ("output", "beginning"),
    [
        (SyslogOutput(name="siem"), b"<106>1 "),  # 13 * 8 + 2
        (SyslogOutput(name="siem", severity_by_label={"critical": 0}), b"<104>1 "),
        (SyslogOutput(name="siem", severity_by_label={"benign": 7}), b"<110>1 "),  # informational
        (SyslogOutput(name="siem", format="cef", severity_by_label={"critical": 1}), b"<105>"),
    ],
)
def test_a_siem_is_told_of_a_label_with_the_severity_that_is_configured(
    tmp_path: Path, output: SyslogOutput, beginning: bytes
) -> None:
    assert delivered(tmp_path, output).startswith(beginning)


@pytest.mark.parametrize(
    ("severities", "written"), [({}, b"|critical event|2|"), ({"critical": 9}, b"|critical event|9|")]
)
def test_cef_has_a_severity_of_its_own(tmp_path: Path, severities: dict[str, int], written: bytes) -> None:
    output = SyslogOutput(name="siem", format="cef", cef_severity_by_label=severities)

    assert written in delivered(tmp_path, output)


def delivered(directory: Path, output: SyslogOutput) -> bytes:
    """What a SIEM is sent of a critical verdict."""
    receiver = Receiver()
    config = Config(
        gateway=Gateway(state_dir=str(directory)), outputs=(msgspec.structs.replace(output, port=receiver.port),)
    )
    letters = dead_letter_sink(config, Event(), Unobserved())
    (outlet,) = outlets(config, {}, Event(), Unobserved(), letters)
    try:
        outlet.sink.deposit([verdict()])
        receiver.until(lambda: bool(receiver.messages))
    finally:
        outlet.sink.close()
        receiver.stop()
    return receiver.messages[0]


def test_what_the_centre_has_said_does_not_go_up_to_it_again(tmp_path: Path) -> None:
    config = Config(gateway=Gateway(state_dir=str(tmp_path)), uplink=Uplink())
    sink = uplink_sink(config, {}, Event(), Unobserved(), dead_letter_sink(config, Event(), Unobserved()))
    assert sink is not None

    (sent,) = sink._encode([verdict(), verdict(revision=CENTRAL)])

    assert decode_verdict(sent) == verdict()


@pytest.mark.parametrize("uplink", [None, Uplink(routes=())])
def test_without_routes_nothing_goes_up(tmp_path: Path, uplink: Uplink | None) -> None:
    config = Config(gateway=Gateway(state_dir=str(tmp_path)), uplink=uplink)

    assert uplink_sink(config, {}, Event(), Unobserved(), dead_letter_sink(config, Event(), Unobserved())) is None
