from models.contracts.policy import Policy
from models.contracts.release import Calibration, Prompt, Release
from models.contracts.task import Label, Task
from quantize.card import card

TASK = Task(
    name="soc-triage",
    instruction="Triage the event.",
    labels=(Label("benign", "routine"), Label("critical", "an attack")),
    default_label="benign",
)
FIGURES = {
    "corpus_sha256": "c" * 64,
    "licence": "Apache-2.0",
    "quantization": "IQ4_NL",
    "orders": "0.010 of 100 events",
    "n_grams_draws": "17 of the 17",
    "test_events": "1142",
    "test_macro_f1": "0.8000",
    "test_macro_f1_of_n_grams": "0.7500",
    "test_calibration_error": "0.0100",
    "test_ece": "0.0200",
    "test_label_flips_against_16_bit": "0.0050",
    "test_accepted": "0.4000",
    "test_error_among_accepted": "0.0300",
    "test_benign": "precision 0.900",
    "test_critical": "precision 0.800",
    "test_field_source": "precision 0.700",
    "test_events_with_a_wrong_value": "0.2500 of 300 events",
}


def page(**more: str) -> str:
    release = Release(
        name="soc-triage",
        number=2,
        task=TASK,
        prompt=Prompt(kind="plain", before="Event: ", after="\nLabel:"),
        calibration=Calibration(temperature=1.25, bias=(0.1, 0.0)),
        policy=Policy(accept_at=1.0, accept_at_by_label={"benign": 0.91, "critical": 1.0}),
        provenance=FIGURES | more,
    )
    return card(release, 2_435_392, "d" * 64)


def test_a_label_without_a_threshold_is_said_to_be_never_accepted() -> None:
    assert "| benign | precision 0.900 | 0.91 |" in page()
    assert "| critical | precision 0.800 | never |" in page()


def test_the_peer_is_said_to_have_seen_as_many_draws_as_it_saw() -> None:
    assert "trained on\n17 of the 17 draws of every template that the network learnt from." in page()


def test_the_share_of_events_with_a_wrong_value_is_on_the_page() -> None:
    assert "invented or misplaced in 0.2500 of 300 events." in page()


def test_a_blocked_release_says_so_before_anything_else() -> None:
    assert "Blocked" not in page()
    assert page(blocked="calibration error: found 0.0474, wanted at most 0.0300").startswith(
        "# soc-triage-2\n\n"
        "**Misses its bounds:** calibration error: found 0.0474, wanted at most 0.0300.\n\n"
        "A small Llama"
    )
