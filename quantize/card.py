"""A release as a page for people: what it is, what was measured, what it is not."""

from collections.abc import Sequence
from pathlib import Path

from models.contracts.release import Release
from models.release_file import digest_of
from quantize import findings
from quantize.figures import Figures
from quantize.pages import page
from quantize.recipe import Recipe

_MOST_LABELS = 20  # then only the weakest are shown
_WEAKEST = 15


def card(recipe: Recipe, release: Release, figures: Figures, path: Path, blocked: Sequence[str]) -> str:
    """Return the page in Markdown; `path` is the release's file, for its size and its digest.

    Raises:
        ConfigError: the file cannot be read.
    """
    labels = findings.label_rows(release, figures)
    shown = labels if len(labels) <= _MOST_LABELS else findings.worst_first(labels)[:_WEAKEST]
    return page(
        "card.md.j2",
        recipe=recipe,
        release=release,
        figures=figures,
        blocked=blocked,
        sha256=digest_of(path),
        size_bytes=path.stat().st_size,
        findings=findings,
        labels=shown,
        others=[row for row in findings.worst_first(labels) if row not in shown],
        cell=_cell,
    )


def _cell(text: str) -> str:
    """Return a text as the cell of a table may have it."""
    return " ".join(text.split()).replace("|", "\\|")
