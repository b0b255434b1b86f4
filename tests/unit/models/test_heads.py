"""What the outputs of a classification head stand for, in whichever order they come."""

import numpy as np
import pytest
from msgspec.structs import replace

from models.contracts.errors import UntrustedError
from models.contracts.task import Field, Label, Task
from models.heads import Choices, Head, outputs_of

TASK = Task(
    name="soc",
    instruction="",
    labels=(Label("benign", "routine"), Label("suspicious", "worth a look"), Label("critical", "an attack")),
    default_label="suspicious",
    fields=(
        Field(name="source", description="where from"),
        Field(name="technique", description="how", kind="choice", choices=("T1110", "T1190")),
        Field(name="outcome", description="did it work", kind="choice", choices=("success", "failure")),
    ),
)
OUTPUTS = (
    "benign", "suspicious", "critical", "-",
    "technique=-", "technique=T1110", "technique=T1190", "outcome=-", "outcome=success", "outcome=failure",
)  # fmt: skip
CLOSE = 1e-12


def head(*outputs: str) -> Head:
    return Head(outputs, TASK, "model.gguf")


def logits(head_outputs: tuple[str, ...], **scores: float) -> np.ndarray:
    """Return logits of -9 but for those that are named; `none` is `-`, and `field__choice` is `field=choice`."""
    named = {name.replace("__", "=").replace("none", "-"): score for name, score in scores.items()}
    return np.array([named.get(output, -9.0) for output in head_outputs])


def test_the_outputs_of_a_task_are_its_labels_none_of_them_and_the_choices_of_its_fields() -> None:
    assert outputs_of(TASK) == OUTPUTS
    assert outputs_of(replace(TASK, fields=())) == ("benign", "suspicious", "critical", "-")


@pytest.mark.parametrize("outputs", [OUTPUTS, OUTPUTS[::-1], (*OUTPUTS[5:], *OUTPUTS[:5])])
def test_outputs_are_found_by_their_names_wherever_they_stand(outputs: tuple[str, ...]) -> None:
    scores = logits(outputs, benign=1, suspicious=2, critical=3, none=2, technique__T1190=1, outcome__success=1)

    log_probabilities, mass = head(*outputs).labels(scores)

    softmax = np.exp([1, 2, 3]) / np.exp([1, 2, 3]).sum()
    assert np.exp(log_probabilities) == pytest.approx(softmax, abs=CLOSE)
    assert mass == pytest.approx(np.exp([1, 2, 3]).sum() / np.exp([1, 2, 3, 2]).sum(), abs=CLOSE)
    assert head(*outputs).chosen(scores) == {"technique": ("T1190",), "outcome": ("success",)}


def test_none_of_the_labels_takes_from_their_mass_and_changes_nothing_among_them() -> None:
    without, _ = head(*OUTPUTS).labels(logits(OUTPUTS, benign=1, suspicious=2, critical=3, none=-50))
    among, mass = head(*OUTPUTS).labels(logits(OUTPUTS, benign=1, suspicious=2, critical=3, none=50))

    assert among == pytest.approx(without, abs=CLOSE)
    assert mass < CLOSE


def test_the_outputs_of_fields_take_nothing_from_the_labels() -> None:
    quiet = head(*OUTPUTS).labels(logits(OUTPUTS, benign=1, none=1))
    loud = head(*OUTPUTS).labels(logits(OUTPUTS, benign=1, none=1, technique__T1110=99, outcome__none=99))

    assert quiet[0] == pytest.approx(loud[0], abs=CLOSE)
    assert quiet[1] == pytest.approx(loud[1], abs=CLOSE)


def test_a_head_of_labels_alone_has_all_the_mass_and_no_choices() -> None:
    alone = head("critical", "benign", "suspicious")
    log_probabilities, mass = alone.labels(np.array([3.0, 1.0, 2.0]))

    assert np.exp(log_probabilities) == pytest.approx(np.exp([1, 2, 3]) / np.exp([1, 2, 3]).sum(), abs=CLOSE)
    assert mass == 1
    assert alone.choices == ()
    assert alone.chosen(np.array([3.0, 1.0, 2.0])) == {}


def test_logits_that_are_far_apart_or_far_from_zero_are_still_probabilities() -> None:
    for shift in (-1e4, 1e4):
        log_probabilities, mass = head(*OUTPUTS).labels(logits(OUTPUTS, benign=shift, suspicious=shift, none=shift))

        assert np.exp(log_probabilities).sum() == pytest.approx(1, abs=CLOSE)
        assert 0 <= mass <= 1


def test_a_field_for_which_none_is_likeliest_is_absent() -> None:
    scores = logits(OUTPUTS, technique__none=2, technique__T1110=1, outcome__failure=0)

    assert head(*OUTPUTS).chosen(scores) == {"outcome": ("failure",)}


def test_a_head_may_know_some_of_the_choices_of_some_of_the_fields() -> None:
    some = head("benign", "suspicious", "critical", "outcome=failure", "outcome=-")

    assert some.choices == (Choices("outcome", ("-", "failure"), (4, 3)),)
    assert some.chosen(np.array([0.0, 0.0, 0.0, 2.0, 1.0])) == {"outcome": ("failure",)}
    assert some.chosen(np.array([0.0, 0.0, 0.0, 1.0, 2.0])) == {}


@pytest.mark.parametrize(
    "outputs",
    [
        ("benign", "suspicious"),
        ("benign", "suspicious", "critical", "harmless"),
        ("benign", "suspicious", "critical", "technique=T9999"),
        ("benign", "suspicious", "critical", "source=10.0.0.1"),
        ("benign", "suspicious", "critical", "critical"),
        ("benign", "suspicious", "critical", "-", "-"),
        ("LABEL_0", "LABEL_1", "LABEL_2"),
        (),
    ],
    ids=["a label is missing", "a stranger", "a stranger's choice", "a copied field", "a label twice", "none twice",
         "names of nothing", "nothing"],
)  # fmt: skip
def test_a_head_that_is_not_the_task_s_is_refused_and_says_what_it_answers(outputs: tuple[str, ...]) -> None:
    with pytest.raises(UntrustedError) as refused:
        head(*outputs)

    assert str(refused.value) == (
        f"model.gguf: its classification head answers {', '.join(outputs)}, task soc wants benign, suspicious, "
        "critical; refused it"
    )


def test_of_many_outputs_a_refusal_names_the_first() -> None:
    with pytest.raises(UntrustedError, match=r"answers a0, a1, a2, a3, a4, a5, a6, a7 and 292 more, task soc wants"):
        head(*(f"a{number}" for number in range(300)))
