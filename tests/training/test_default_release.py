"""What the default release's figures are counted over."""

import numpy as np

from models.contracts.policy import Policy
from models.contracts.release import Release
from quantize.default_release import PROMPT, Measured, _outcome, _witnesses, read_task
from quantize.event_types import EventType
from quantize.expand import expand


def measured(confidence: list[float], right: list[bool]) -> Measured:
    rest = (1 - np.array(confidence)) / 2
    return Measured(
        probabilities=np.stack([np.array(confidence), rest, rest], axis=1),
        masses=np.ones(len(confidence)),
        labels=np.array([0 if one else 1 for one in right]),
        fields=[{} for _ in confidence],
    )


def test_copies_of_one_template_are_one_witness() -> None:
    kind = EventType("Kea", "dhcp", "text", "benign", ("first thing", "second thing"))
    lines = [line.text for line in expand([kind], copies=2, seed=1)]

    assert ["first" in line for line in lines] == [True, True, False, False]
    assert _witnesses(len(lines)).tolist() == [0, 0, 1, 1]


def test_an_outcome_is_counted_over_what_the_policy_accepts() -> None:
    policy = Policy(accept_at=1.0, accept_at_by_label={"benign": 0.8})
    release = Release(name="soc-triage", number=2, task=read_task(), prompt=PROMPT, policy=policy)
    small = measured([0.9, 0.9, 0.85, 0.7], [True, False, True, False])
    full = measured([0.9, 0.9, 0.85, 0.2], [True, False, True, False])

    outcome = _outcome(small, full, release)

    assert (outcome.accepted, outcome.error_among_accepted, outcome.witnesses) == (0.75, 1 / 3, 2)
    assert outcome.label_flips == 0.25
