"""The README's table comes from what was measured, and knows every figure by name."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from bench.__main__ import NAMES_BY_MODULE
from bench.figures import AFTER, BEFORE, WHAT, table, with_figures
from bench.row import Row

README = Path(__file__).parents[3] / "README.md"
ROW = Row(name="label_vs_grammar", value=391.4, unit="events/s", peer="grammar: 33.1", ratio=11.83, passed=True)


def test_every_figure_that_is_measured_has_words_in_the_table() -> None:
    assert set(WHAT) == {name for names in NAMES_BY_MODULE.values() for name in names}


def test_a_figure_stands_beside_its_peer_and_its_command() -> None:
    assert table([ROW]).splitlines()[2:] == [
        f"| {WHAT[ROW.name]} | 391 events/s | grammar: 33.1 | 12 | ratio ≥ 6: met | `./just bench --only {ROW.name}` |"
    ]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (ROW, "ratio ≥ 6: met"),
        (replace(ROW, passed=False), "ratio ≥ 6: **missed**"),
        (replace(ROW, passed=None), "reported"),
    ],
)
def test_a_missed_target_stands_out_with_what_was_wanted(row: Row, words: str) -> None:
    assert f"| {words} |" in table([row])


def test_writing_the_table_again_changes_nothing_else() -> None:
    readme = f"before\n{BEFORE}old\n{AFTER}after\n"
    once = with_figures(readme, [ROW])

    assert with_figures(once, [ROW]) == once == f"before\n{BEFORE}{table([ROW])}{AFTER}after\n"


def test_the_readme_has_a_place_for_the_table() -> None:
    text = README.read_text(encoding="utf-8")

    assert text.count(BEFORE) == text.count(AFTER) == 1
