"""What more event types are worth: `python -m bench.quality.curve`.

Character n-grams learn from a growing share of the corpus and label events that they know nothing of: of vendors that
they never saw, of families that they never saw, and of strangers where those lie beside the checkout. N-grams, since a
point takes them a minute; an encoder's curve would take a day. Shares are of groups, so a share has fewer kinds and not
fewer repeats.
"""

from collections.abc import Iterator, Sequence
from hashlib import sha256

import numpy as np
from msgspec import Struct
from rich.console import Console
from rich.table import Table

from bench.quality.measures import ROOT, STRANGERS
from quantize import baseline, measure
from quantize.calibrate import Labels
from quantize.event_types import EventType, in_fold, read_event_types, without_look_alikes
from quantize.events import body_of
from quantize.expand import Example, example_of, expand
from quantize.labelled import read_labelled
from quantize.product_groups import product_groups
from quantize.recipe import read_task

SHARES = (0.125, 0.25, 0.5, 1.0)
_HELD_OUT_FAMILIES = 0.2
_LEARNT_SEED, _TEST_SEED = 81, 82
TASK = read_task(ROOT / "models" / "tasks" / "soc-triage.toml")


class Point(Struct, frozen=True):
    """One training: of how many event types, and the macro-F1 on each set that was held out."""

    event_types: int
    macro_f1: dict[str, float]


def curve() -> Iterator[Point]:
    """Yield a point per share of the corpus."""
    types = read_event_types()
    learnt = in_fold(types, "train")
    groups = product_groups(kind.product for kind in types)
    families = {kind.family for kind in types}
    unseen = {family for family in families if _rank(f"family/{family}") < _HELD_OUT_FAMILIES}
    known = [kind for kind in learnt if kind.family not in unseen]
    held_out = {
        "unseen vendors": [kind for kind in in_fold(types, "test") if kind.family not in unseen],
        "unseen families": [kind for kind in learnt if kind.family in unseen],
        "both unseen": [kind for kind in in_fold(types, "test") if kind.family in unseen],
    }
    asked = {name: _examples(without_look_alikes(kinds, known), _TEST_SEED) for name, kinds in held_out.items()}
    if STRANGERS.is_file():
        strangers = read_labelled(STRANGERS, TASK, "product")
        asked["strangers"] = [Example(body_of(event.text), event.label, event.group, {}) for event in strangers]
    for share in SHARES:
        some = [kind for kind in known if _rank(f"group/{groups[kind.product][0]}") < share]
        peer = baseline.train_baseline(_examples(some, _LEARNT_SEED), TASK.label_names)
        yield Point(len(some), {name: _macro_f1(peer, examples) for name, examples in asked.items()})


def main() -> None:
    """Print the curve."""
    rows = []
    for point in curve():
        rows.append(point)
        Console(stderr=True).print(f"{point.event_types} event types: {point.macro_f1}")
    table = Table("event types", *rows[0].macro_f1, title="macro-F1 of character n-grams")
    for point in rows:
        table.add_row(str(point.event_types), *(f"{value:.3f}" for value in point.macro_f1.values()))
    Console().print(table)


def _rank(name: str) -> float:
    """Return a place between 0 and 1 that depends on the name alone: a larger share holds all of a smaller one."""
    return int.from_bytes(sha256(f"curve/{name}".encode()).digest()[:6]) / 2**48


def _examples(kinds: Sequence[EventType], seed: int) -> list[Example]:
    return [example_of(line, TASK) for line in expand(kinds, copies=1, seed=seed)]


def _macro_f1(peer: object, examples: Sequence[Example]) -> float:
    labels: Labels = np.array([TASK.label_names.index(example.label) for example in examples], dtype=np.int64)
    chosen = baseline.choose(peer, [example.body for example in examples])
    return measure.macro_f1_of(chosen, labels, len(TASK.label_names))


if __name__ == "__main__":
    main()
