"""Which event to label next: the least certain, and of events that are alike one before the next. Pure.

A label tells a model most where it wavers between two (margin sampling: Scheffer et al., "Active Hidden Markov Models",
2001). But what it is least sure of is often one line of one program, a thousand times; so the second of a kind waits
until every kind had its first.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from quantize.labelled import phrases_of

_ALIKE = 0.6  # of the phrases that either text has
_COMMON = 400  # a phrase of more kinds than this says little of any


def ranked(bodies: Sequence[str], probabilities: NDArray[np.float64], labelled: Sequence[str] = ()) -> list[int]:
    """Return the numbers of `bodies` in the order in which to label them; `labelled` are those that were before."""
    two = np.sort(probabilities, axis=1)[:, -2:]
    by_margin = np.argsort(two[:, 1] - two[:, 0], kind="stable").tolist()
    kinds = kinds_of([*labelled, *(bodies[at] for at in by_margin)])
    seen = Counter(kinds[: len(labelled)])
    waits = []
    for kind in kinds[len(labelled) :]:
        waits.append(seen[kind])
        seen[kind] += 1
    return [by_margin[place] for place in sorted(range(len(by_margin)), key=lambda place: (waits[place], place))]


def kinds_of(texts: Sequence[str]) -> list[int]:
    """Return the kind of each text, by number: that of the earlier text that it is most like, or a new one."""
    firsts: list[frozenset[str]] = []
    whole: dict[frozenset[str], int] = {}
    by_phrase: dict[str, list[int]] = {}
    kinds = []
    for text in texts:
        mine = phrases_of(text)
        kind = whole.get(mine)
        if kind is None:
            kind = _nearest(mine, firsts, by_phrase)
        if kind is None:
            kind = len(firsts)
            firsts.append(mine)
            for phrase in mine:
                by_phrase.setdefault(phrase, []).append(kind)
        whole.setdefault(mine, kind)
        kinds.append(kind)
    return kinds


def _nearest(mine: frozenset[str], firsts: Sequence[frozenset[str]], by_phrase: dict[str, list[int]]) -> int | None:
    shared = Counter(kind for phrase in mine for kind in by_phrase.get(phrase, ())[:_COMMON])
    alike = {kind: both / len(mine | firsts[kind]) for kind, both in shared.items()}
    nearest = max(alike, key=lambda kind: (alike[kind], -kind), default=None)
    return nearest if nearest is not None and alike[nearest] > _ALIKE else None
