from pathlib import Path
from threading import Event

from bytewax.testing import TestingSource

from dataflows.observer import Unobserved
from dataflows.operators.repeats import Repeats
from dataflows.triage import triage
from edge.config import Config, Gateway, Terminal
from edge.outputs import dead_letter_sink, outlets
from models.classifier import Classifier, Current
from models.contracts.policy import Policy
from tests.fakes.classifier import ScriptedClassifier

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
        window_events=64,
        wait=lambda _seconds: False,
        observer=Unobserved(),
    )
    assert len({outlet.name for outlet in found}) == len(NAMES)
