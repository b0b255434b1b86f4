"""When to give an engine up, and when to look for it again. Pure.

    Closed ──misses in a row, or broken──► Open ──looking──► Trying ──opened──► Closed
                                             ▲                 │
                                             └─────failed──────┘

While it is closed every event is asked about. While it is open none is, so that nobody waits for an engine that does
not answer; it is looked for with questions of our own, never with an event.
"""

from typing import Final

from msgspec import Struct

from models.contracts.scalars import Count

_JITTER: Final = 0.25  # the share of each delay that chance takes off


class Closed(Struct, frozen=True):
    """The engine is asked."""

    missed: Count = 0  # events in a row that it has not answered


class Open(Struct, frozen=True):
    """It is left alone for so long, after so many times that it was looked for in vain."""

    delay_s: float
    tries: Count = 0


class Trying(Struct, frozen=True):
    """It is being looked for."""

    tries: Count = 0


State = Closed | Open | Trying


class Asked(Struct, frozen=True):
    """It was asked about a batch, and answered so many events, or not."""

    answered: Count
    missed: Count


class Broken(Struct, frozen=True):
    """It says itself that it is gone."""


class Looking(Struct, frozen=True):
    """It is about to be looked for."""


class Opened(Struct, frozen=True):
    """It is there again."""


class Failed(Struct, frozen=True):
    """It is not."""


Fact = Asked | Broken | Looking | Opened | Failed


class Patience(Struct, frozen=True):
    """How much of it there is."""

    misses: int = 8  # in a row: one event that no engine can answer is no reason to give it up
    first_s: float = 1.0
    most_s: float = 30.0


def step(state: State, fact: Fact, patience: Patience, chance: float) -> State:
    """Return the next state; a fact that does not fit the state changes nothing. `chance` is between 0 and 1."""
    match state, fact:
        case Closed(missed=before), Asked(answered=answered, missed=missed):
            in_a_row = 0 if answered else before + missed
            return _open(0, patience, chance) if in_a_row >= patience.misses else Closed(in_a_row)
        case Closed(), Broken():
            return _open(0, patience, chance)
        case Open(tries=tries), Looking():
            return Trying(tries)
        case Trying(), Opened():
            return Closed()
        case Trying(tries=tries), Failed():
            return _open(tries + 1, patience, chance)
        case _:
            return state


def _open(tries: int, patience: Patience, chance: float) -> Open:
    delay_s = min(patience.first_s * 2.0 ** min(tries, 32), patience.most_s)
    return Open(delay_s * (1 - _JITTER * chance), tries)
