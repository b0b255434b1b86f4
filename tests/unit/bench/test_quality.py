"""`./just bench-quality` asks as a gateway asks, and says in a sentence what it cannot measure."""

from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from bench.quality.__main__ import measure
from bench.quality.measures import Shipped, of_other_data, of_strangers, row, rows_recorded
from bench.row import Row
from models.contracts.release import Calibration, Prompt
from models.release_file import release_path
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


def test_a_release_of_other_data_is_said_to_be_one() -> None:
    made = replace(RELEASE, provenance={"data_sha256": "a" * 64})

    assert of_other_data(made, "a" * 64) == []
    (said,) = of_other_data(made, "b" * 64)
    assert said == (
        f"it was made from data that hash to {'a' * 64}, those of its recipe hash to {'b' * 64} now; held-out figures "
        "may be of events that it has learnt"
    )
    assert "hash to (not recorded)" in of_other_data(RELEASE, "b" * 64)[0]


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
