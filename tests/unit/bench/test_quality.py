"""`./just bench-quality` asks as a gateway asks, and says in a sentence what it cannot measure."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from bench.quality.__main__ import measure
from bench.quality.measures import Shipped, of_fields, of_other_data, of_strangers, of_two_sides, row, rows_recorded
from bench.row import Row
from models.contracts.release import Calibration, Prompt
from models.release_file import release_path
from quantize.ask import Answers
from quantize.examples import Examples, HeldOut
from quantize.expand import Example
from quantize.measure import Estimate
from quantize.recipe import Base, Data, Recipe
from tests.fakes.tiny_models import RELEASE, tiny_encoder

HEADER = "Jan  2 03:04:05 web-1 "
TEXTS = {
    "benign": ("session opened for user ann", "backup of the volume is done"),
    "suspicious": ("Failed password for root from 10.0.0.7", "new rule lets port 22 in"),
    "critical": ("ransom note written to the share", "shadow copies deleted by powershell"),
}
FOLDS = ("train", "calibration", "test")


def write(path: Path, *, header: str = "", folds: bool = False) -> Path:
    rows = [
        {"text": f"{header}{text}", "label": label, "product": f"product-{at}", "fields": {"technique": "T1110"}}
        for label, texts in TEXTS.items()
        for at, text in enumerate(texts)
    ]
    if folds:  # other words in each, so that none nearly repeats another
        rows = [
            {
                **row,
                "text": " ".join(word + "xyz"[at] for word in str(row["text"]).split()),
                "fold": fold,
                "product": fold,
            }
            for at, fold in enumerate(FOLDS)
            for row in rows
        ]
    path.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
    return path


def shipped(folder: Path, calibration: Calibration | None = None) -> Shipped:
    """A release of random weights, and a recipe with few events."""
    release = replace(RELEASE, prompt=Prompt(kind="encoder"), calibration=calibration or Calibration())
    data = Data(
        kind="labelled",
        path=str(write(folder / "events.jsonl", folds=True)),
        licence="",
        attribution="",
        group_by="product",
        fewest_per_label=1,
    )
    recipe = Recipe(name="tiny", number=1, task="models/tasks/soc-triage.toml", data=data, base=Base(kind="none"))
    return Shipped(tiny_encoder(folder / "tiny.gguf", release=release), recipe)


def test_strangers_events_are_asked_about_without_their_headers(tmp_path: Path) -> None:
    ours = shipped(tmp_path)

    whole = of_strangers(ours, write(tmp_path / "whole.jsonl", header=HEADER))

    assert whole == of_strangers(ours, write(tmp_path / "bodies.jsonl"))


def test_a_release_that_calls_nothing_harmful_is_measured(tmp_path: Path) -> None:
    calm = shipped(tmp_path, Calibration(bias=(1_000.0, 0.0, 0.0)))

    rows = {one.name: one.value for one in of_strangers(calm, write(tmp_path / "strangers.jsonl"))}

    assert (rows["triage_binary_f1"], rows["source_f1"], rows["technique_accuracy"]) == (0.0, 0.0, 0.0)


def test_always_harmful_stands_beside_what_it_would_get() -> None:
    labels = np.array([0, 1, 1, 2])  # always harmful: precision 3/4, recall 1

    f1, both = of_two_sides(np.array([0, 0, 1, 2]), labels, np.arange(4))

    assert (f1.value, f1.peer) == (pytest.approx(4 / 5), f"always harmful: {6 / 7:.3f}")
    assert (both.value, both.peer) == (pytest.approx((4 / 5 + 2 / 3) / 2), f"always harmful: {3 / 7:.3f}")


def test_events_of_one_product_are_drawn_together_for_an_interval() -> None:
    labels, chosen = np.array([1, 0] * 20), np.array([1, 0] * 10 + [0, 1] * 10)

    def width(products: np.ndarray) -> float:
        low, high = of_two_sides(chosen, labels, products)[1].interval or (0.0, 0.0)
        return high - low

    assert width(np.arange(40)) < 0.5
    assert width(np.repeat([0, 1], 20)) == 1  # of one product all is right, of the other nothing


def test_fields_of_what_is_called_benign_count_in_no_figure() -> None:
    chosen = np.array([0, 1, 2])
    seen = Answers(
        probabilities=np.eye(3)[chosen],
        masses=np.ones(3),
        fields=[{}, {"source": ("10.0.0.7",), "technique": ("T1110",)}, {"source": ("root",)}],
    )
    wanted = [{"source": ("a",), "technique": ("T1",)}, {"source": ("10.0.0.7",), "technique": ("T1110",)}, {}]

    source, technique = of_fields(seen, wanted, np.arange(3))

    assert (source.value, source.unit) == (1.0, "F1 of 1 values")
    assert (technique.value, technique.unit) == (1.0, "share of 1")


def test_a_target_is_held_against_the_figure_and_not_its_interval() -> None:
    found = row("triage_macro_f1", Estimate(0.5, 0.4, 0.6), "macro-F1", at_least=0.45)

    assert (found.passed, found.interval) == (True, (0.4, 0.6))
    assert row("label_events_per_s", 50.0, "events/s", at_least=60).interval is None


@pytest.mark.parametrize(
    ("told", "names"),
    [
        ({"label_flips": "0.0042", "minutes": "61.0"}, ["flips_vs_16bit", "quantize_minutes"]),
        ({"minutes": "61.0"}, ["quantize_minutes"]),
        ({}, []),
    ],
)
def test_what_a_release_does_not_record_is_left_out(told: dict[str, str], names: list[str]) -> None:
    assert [one.name for one in rows_recorded(told)] == names


def held_out(*bodies: str) -> HeldOut:
    return HeldOut([Example(body, "benign", "", {}) for body in bodies], np.arange(len(bodies)))


def examples(*bodies: str, digest: str = "a" * 64) -> Examples:
    return Examples(
        draw=lambda _: [],
        calibration=held_out("x"),
        test=held_out(*bodies),
        foreign=[],
        foreign_test=[],
        digest=digest,
    )


def test_a_release_of_other_data_is_said_to_be_one() -> None:
    made = replace(RELEASE, provenance={"data_sha256": "a" * 64})

    assert of_other_data(made, examples("event")) == []
    (said,) = of_other_data(made, examples("event", digest="b" * 64))
    assert said == (
        f"its data hashed to {'a' * 64} when it was made and hash to {'b' * 64} now; held-out figures may be of events "
        "that it has learnt"
    )
    assert "its data hashed to (not recorded)" in of_other_data(RELEASE, examples("event"))[0]


def test_the_same_data_held_out_otherwise_are_found_out() -> None:
    before = examples("one", "two")
    made = replace(RELEASE, provenance={"data_sha256": before.digest, "held_out_sha256": before.test.digest})

    assert of_other_data(made, examples("two", "one", digest="b" * 64)) == []
    assert of_other_data(made, examples("one", "three"))[0].startswith("its held-out events hashed to ")


def test_a_release_that_is_not_there_is_a_sentence_and_the_others_are_measured(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def missing() -> list[Row]:
        raise AssertionError(release_path("no-such-release"))

    def there() -> list[Row]:
        return [row("there", 1.0, "accuracy"), row("not asked for", 1.0, "accuracy")]

    rows, failed = measure({"missing", "there"}, {missing: ("missing",), there: ("there", "not asked for")})

    assert ([one.name for one in rows], failed) == (["there"], True)
    assert "bench-quality: model `no-such-release`: no such file, and no shipped release" in capsys.readouterr().err
