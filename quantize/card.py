"""A release as a page for people: what it is, what was measured, what it is not."""

import math
from pathlib import Path
from string import Template

from models.contracts.release import Release
from quantize import gate

_PAGE = Path(__file__).with_suffix(".md")
_FIELD = "test_field_"
_NOT_MEASURED = "not measured"


def card(release: Release, size_bytes: int, sha256: str) -> str:
    """Return the page in Markdown; every figure comes from the release's own provenance."""
    figures, task, policy = release.provenance, release.task, release.policy
    accepted_from = {name: policy.accepts_from(name) for name in task.label_names}
    labels = [
        f"| {name} | {figures[f'test_{name}']} | {'never' if math.isinf(at) else at} |"
        for name, at in accepted_from.items()
    ]
    fields = [f"| {key.removeprefix(_FIELD)} | {value} |" for key, value in figures.items() if key.startswith(_FIELD)]
    values = {
        # Real events lie only where somebody put them.
        "real_events_macro_f1": _NOT_MEASURED,
        "real_events_macro_f1_of_n_grams": _NOT_MEASURED,
        **figures,
        "blocked": f"\n**Misses its bounds:** {figures['blocked']}.\n" if "blocked" in figures else "",
        "title": release.title,
        "task": task.name,
        "max_error": f"{gate.MAX_ERROR:.0%}".replace("%", " %"),
        "number": str(release.number),
        "size_bytes": f"{size_bytes:,}",
        "sha256": sha256,
        "labels": "\n".join(labels),
        "fields": "\n".join(fields),
        "temperature": f"{release.calibration.temperature:.3f}",
        "bias": str([round(one, 3) for one in release.calibration.bias]),
        "doubtful": policy.doubtful,
        "mass_floor": str(policy.mass_floor),
    }
    return Template(_PAGE.read_text(encoding="utf-8")).substitute(values)
