import re
from hashlib import sha256
from pathlib import Path

import pytest

from models.contracts.errors import ConfigError
from models.contracts.policy import Policy
from models.contracts.release import Calibration
from quantize.card import card
from quantize.figures import Peer
from quantize.measure import Estimate
from quantize.recipe import Base, Data, Recipe, TrainDecoder, TrainEncoder, TrainFromScratch, TrainNothing
from tests.fakes import measured

MODEL = b"the bytes of a model" * 300


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "triage-3.gguf"
    path.write_bytes(MODEL)
    return path


def page(model: Path, *blocked: str, recipe: Recipe | None = None, **changes: object) -> str:
    return card(recipe or measured.recipe(), measured.release(), measured.figures(**changes), model, blocked)


def cells(text: str) -> list[list[str]]:
    """Return the rows of all tables."""
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in text.splitlines()
        if line.startswith("|")
    ]


def test_the_card_names_the_file_by_its_size_and_its_digest(model: Path) -> None:
    assert "6,000 bytes, SHA-256\n`" + sha256(MODEL).hexdigest() + "`." in page(model)


def test_a_file_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.gguf"):
        page(tmp_path / "gone.gguf")


def test_a_blocked_release_says_so_before_anything_else(model: Path) -> None:
    assert "Misses its bounds" not in page(model)
    assert page(model, "accuracy: found 0.7, wanted 0.8", "macro-F1: found 0.6, wanted 0.7").startswith(
        "# triage-3\n\n"
        "**Misses its bounds:** accuracy: found 0.7, wanted 0.8; macro-F1: found 0.6, wanted 0.7.\n\n"
        "An encoder"
    )


def test_the_figures_have_their_intervals_and_stand_beside_their_peers(model: Path) -> None:
    rows = cells(page(model))

    assert ["**this release**", "0.764", "0.741 to 0.788", "0.752", "0.726 to 0.779"] in rows
    assert ["n-grams", "0.731", "", "0.718", ""] in rows
    assert ["labels that differ from the 16-bit model's", "0.67 %", "", "at most 1 %"] in rows
    assert ["false alarms on plain operation", "5.20 %", "3.10 to 7.70 %", ""] in rows
    assert ["target", "0.445", "0.339", "173"] in rows
    assert ["authority", "0.00 %"] in rows


def test_the_calibration_error_has_its_interval(model: Path) -> None:
    row = next(row for row in cells(page(model)) if row[0].startswith("calibration error"))

    assert row[1:] == ["0.022", "0.000 to 0.029", "at most 0.030"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Estimate(0.022, 0.0, 0.029), ""),
        (Estimate(0.060, 0.031, 0.080), ""),
        (
            Estimate(0.030, 0.0, 0.055),
            "- Its calibration error may lie anywhere from 0.000 to 0.055, and its limit is 0.03",
        ),
        (Estimate(1.0, 0.0, 1.0), "- 961 witnesses are too few to tell its calibration error, which counts as 1."),
    ],
)
def test_where_chance_decides_on_the_calibration_error_the_card_says_so(
    error: Estimate, said: str, model: Path
) -> None:
    what_it_is_not = page(model, calibration_error=error).partition("what it is not")[2]

    assert said in what_it_is_not
    assert bool(said) == ("calibration error" in what_it_is_not)


@pytest.mark.parametrize(
    ("witnesses", "limit"),
    [
        (380, "at most 10 %; 13.08 % with what chance adds"),
        (20, "at most 10 %; 23.42 % with what chance adds"),
    ],
)
def test_how_much_of_the_accepted_may_be_wrong_by_chance_is_a_number(witnesses: int, limit: str, model: Path) -> None:
    assert ["wrong among the accepted", "3.11 %", "", limit] in cells(page(model, accepted_witnesses=witnesses))


@pytest.mark.parametrize(
    ("rounded", "more"), [(0, ""), (2, ", which was itself trained with 4-bit weights (ADR 0019)")]
)
def test_the_16_bit_model_is_said_to_be_trained_with_4_bits_where_it_was(rounded: int, more: str, model: Path) -> None:
    recipe = measured.recipe(training=TrainEncoder(layers=6, rounded_epochs=rounded))

    rows = cells(page(model, recipe=recipe))

    assert [f"labels that differ from the 16-bit model's{more}", "0.67 %", "", "at most 1 %"] in rows


def test_a_peer_that_is_better_is_said_to_be_also_where_the_card_says_what_it_is_not(model: Path) -> None:
    said = "By macro-F1, the peer `n-grams` is better than this release: 0.801 to 0.752, above this release's"

    text = page(model, peers=[Peer("n-grams", 0.7, 0.801)])

    measured_, _, what_it_is_not = text.partition("what it is not")
    assert said in measured_
    assert f"- {said}" in what_it_is_not
    assert "By accuracy, the peer" not in text


def test_a_label_without_a_threshold_is_said_to_be_never_accepted(model: Path) -> None:
    rows = {row[0]: row[-1] for row in cells(page(model))}

    assert (rows["benign"], rows["suspicious"], rows["critical"]) == ("0.91", "0.84", "never")
    text = " ".join(page(model).split())
    assert "from the top down, until one failed to show that at most 10 % of a label's verdicts are wrong" in text
    assert "the label is never accepted and goes to review." in text
    assert "Below a label mass of 0.998 nothing is accepted." in page(model)


def test_what_was_not_measured_is_never_nought(model: Path) -> None:
    text = page(
        model,
        label_flips=None,
        foreign_auroc=None,
        injections=None,
        quiet_false_alarms=None,
        events_per_s=0.0,
        fields={},
        machine="",
    )
    found = {row[0]: row[1] for row in cells(text) if len(row) == 4}

    assert {what for what, figure in found.items() if figure == "not measured"} == {
        "labels that differ from the 16-bit model's",
        "injected texts that got their event a milder label",
        "label mass against foreign text, AUROC",
        "false alarms on plain operation",
        "speed, one thread, different events",
    }
    assert "Its fields were not measured." in text
    assert "Machine: not measured." in text
    assert "- How it treats texts of other kinds was not measured." in text


def test_of_many_labels_the_card_has_the_weakest_and_a_count(model: Path) -> None:
    release, figures = measured.release(measured.MANY), measured.figures(measured.MANY)

    text = card(measured.recipe(), release, figures, model, ())
    shown = [row[0] for row in cells(text) if row[0].startswith("intent_")]

    assert len(shown) == 15
    assert shown[0] == "intent_75"
    others = [figures.by_label[name].f1 for name in measured.MANY if name not in shown]
    assert "These are the 15 weakest of 77 labels. The other 62 have an F1 from" in text
    assert f"F1 from {min(others):.3f}\nupwards; 60 of them are never accepted." in text
    assert "77 biases between 0.000 and 7.600." in text


def test_no_biases_are_said_to_be_none(model: Path) -> None:
    release = measured.release(calibration=Calibration(temperature=0.9), policy=Policy())

    text = card(measured.recipe(), release, measured.figures(), model, ())

    assert "Temperature 0.900, no biases." in text
    assert "Below a label mass" not in text


ENCODER = Base(kind="encoder", path="folder/model", licence="MIT")
DECODER = Base(kind="decoder", path="folder/model", licence="MIT")


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (
            measured.recipe(base=Base(kind="none"), training=TrainFromScratch()),
            "A small Llama, trained from scratch; for `soc-triage`",
        ),
        (measured.recipe(), "An encoder, `an-encoder==1.0`, of which its lowest 6 layers were fine-tuned"),
        (
            measured.recipe(base=DECODER, training=TrainDecoder(adapters=4)),
            "A causal model, `folder/model`, trained by low-rank adapters of rank 4, merged since",
        ),
        (
            measured.recipe(base=DECODER, training=TrainDecoder(adapters=0)),
            "A causal model, `folder/model`, trained with all of its weights",
        ),
        (measured.recipe(base=ENCODER, training=TrainNothing()), "An encoder, `folder/model`, calibrated, measured"),
        (
            measured.recipe(base=Base(kind="gguf", path="a.gguf"), training=TrainNothing()),
            "packaged here; nothing of it was trained here; for `soc-triage`, in the types it came in",
        ),
    ],
    ids=["scratch", "encoder", "adapters", "whole decoder", "untrained encoder", "finished"],
)
def test_the_card_says_what_was_trained_of_which_model(recipe: Recipe, said: str, model: Path) -> None:
    assert said in page(model, recipe=recipe)


@pytest.mark.parametrize(
    ("recipe", "known", "caution"),
    [
        (measured.recipe(), "none of them learnt from", ""),
        (
            measured.recipe(base=Base(kind="none"), training=TrainFromScratch()),
            "none of them learnt from",
            "",
        ),
        (
            measured.recipe(base=Base(kind="none"), training=TrainFromScratch(teacher="soc-triage")),
            "none of them learnt from, though perhaps by its teacher",
            "- It learnt from opinions of the release `soc-triage`. If that one was trained on events of the test,",
        ),
        (
            measured.recipe(base=ENCODER, training=TrainNothing()),
            "none of them learnt from here, though perhaps before",
            "- What it was trained on before it came here is not known. If events of the test were among that,",
        ),
    ],
    ids=["encoder", "scratch", "taught", "finished"],
)
def test_whether_the_held_out_events_were_learnt_from_is_said_as_far_as_it_is_known(
    recipe: Recipe, known: str, caution: str, model: Path
) -> None:
    text = page(model, recipe=recipe)
    rows = {row[0]: row[1] for row in cells(text) if len(row) == 2}

    assert f"witnesses, {known}, after quantization" in text
    assert rows["held out"].endswith(f"witnesses, {known}")
    assert caution in text
    assert bool(caution) == ("events of the test" in text)
    assert ("vendors and products of the test are new to it" in text) == (recipe.training != TrainNothing())


def test_licences_attributions_and_digests_are_on_the_card(model: Path) -> None:
    data = Data(
        kind="labelled",
        path="events.jsonl",
        licence="CC-BY-4.0",
        attribution="Some People,\n2020 | revised",
        group_by="bank",
    )
    rows = {row[0]: row[1] for row in cells(page(model, recipe=measured.recipe(data=data))) if len(row) == 2}

    assert rows["data"] == "`events.jsonl`: labelled events, held out by `bank`"
    assert rows["data, licence"] == "CC-BY-4.0"
    assert rows["data, attribution"] == "Some People, 2020 \\| revised"
    assert rows["data, SHA-256"] == "d" * 64
    assert rows["base, SHA-256"] == "b" * 64
    assert rows["base, licence"] == "MIT"
    assert rows["licence of the release"] == "Apache-2.0"


def test_what_it_is_not_follows_from_recipe_and_figures(model: Path) -> None:
    labelled = Data(kind="labelled", path="events.jsonl", licence="CC-BY-4.0", attribution="Some People")
    generated = page(model, "accuracy: found 0.7, wanted 0.8").partition("what it is not")[2]
    collected = page(model, recipe=measured.recipe(data=labelled)).partition("what it is not")[2]

    assert "It does not `explain` itself." in generated
    assert "- It misses 1 of its recipe's limits" in generated
    assert "- Trained and measured on generated events." in generated
    assert "- A verdict of `critical` is never accepted" in generated
    assert "- Weakest at `suspicious`: precision 0.740, recall 0.740 on 500 events." in generated
    assert "- Trained and measured on events of one collection, `events.jsonl`." in collected
    assert "generated" not in collected
    assert "misses" not in collected


def test_without_an_order_an_injected_text_asks_for_the_default_label(model: Path) -> None:
    text = page(model, recipe=measured.recipe(severity=()))

    assert "which it had not called `suspicious`, 3.81 % got their event the label `suspicious`." in text
