"""The README's tables come from what was measured, and know every figure by name."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from bench.__main__ import NAMES_BY_MODULE
from bench.cache.__main__ import MEASURED as OF_THE_CACHE
from bench.figures import CACHE, PLACES, QUALITY, SPEED, Place, table, with_figures
from bench.quality.measures import MEASURED
from bench.row import Row

README = Path(__file__).parents[3] / "README.md"
ROW = Row(name="label_vs_grammar", value=391.4, unit="events/s", peer="grammar: 33.1", ratio=11.83, passed=True)


def test_every_figure_that_is_measured_has_words_in_a_table() -> None:
    assert set(SPEED) == {name for names in NAMES_BY_MODULE.values() for name in names}
    assert set(QUALITY) == {name for names in MEASURED.values() for name in names}
    assert set(CACHE) == {name for names in OF_THE_CACHE.values() for name in names}


def test_a_figure_stands_beside_its_peer_and_its_command() -> None:
    assert table([ROW], PLACES[0]).splitlines()[2:] == [
        f"| {SPEED[ROW.name]} | 391 events/s | grammar: 33.1 | 12 | ratio ≥ 6: met | `./just bench --only {ROW.name}` |"
    ]


def test_an_interval_stands_in_brackets_behind_its_figure() -> None:
    row = Row(name="triage_macro_f1", value=0.4112, interval=(0.3504, 0.456), unit="macro-F1")

    assert "| 0.411 (0.35 to 0.456) macro-F1 |" in table([row], PLACES[1])


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (ROW, "ratio ≥ 6: met"),
        (replace(ROW, passed=False), "ratio ≥ 6: **missed**"),
        (replace(ROW, passed=None), "reported"),
    ],
)
def test_a_missed_target_stands_out_with_what_was_wanted(row: Row, words: str) -> None:
    assert f"| {words} |" in table([row], PLACES[0])


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.name)
def test_writing_a_table_again_changes_nothing_else(place: Place) -> None:
    readme = f"before\n{place.before}old\n{place.after}after\n"
    once = with_figures(readme, [ROW], place)

    assert (
        with_figures(once, [ROW], place) == once == f"before\n{place.before}{table([ROW], place)}{place.after}after\n"
    )


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.name)
def test_the_readme_has_a_place_for_the_table(place: Place) -> None:
    text = README.read_text(encoding="utf-8")

    assert text.count(place.before) == text.count(place.after) == 1
