"""The shipped sample: lines as a gateway receives them, without their labels."""

from random import Random

from quantize.event_types import EventType
from quantize.expand import expand

LINES = 2_400
_SEED = 20_260_101
# Streams are mostly routine; a sample of one third each would look like a burning house.
_SHARES = {"benign": 0.62, "suspicious": 0.26, "critical": 0.12}
_LINE_MAX_CHARACTERS = 900  # keeps the file under 1 MB


def sample_lines(types: list[EventType], lines: int = LINES) -> list[str]:
    """Return `lines` different lines in a random order that is the same every time."""
    chance = Random(_SEED)  # noqa: S311 - wanted: the same for the same seed
    by_label: dict[str, list[str]] = {label: [] for label in _SHARES}
    for line in expand(types, copies=2, seed=_SEED):
        if len(line.text) <= _LINE_MAX_CHARACTERS:
            by_label[line.label].append(line.text)
    chosen: list[str] = []
    for label, share in _SHARES.items():
        pool = sorted(set(by_label[label]))
        chosen += chance.sample(pool, round(lines * share))
    chance.shuffle(chosen)
    return chosen
