"""That reading a hostile text takes time by its length, and not by its square."""

import time
from collections.abc import Callable

SHORT, LONG = 4096, 16_384
_ALLOWED = 10  # times the time for four times the text; a square would want sixteen
_NOISE_S = 0.05
_ATTEMPTS = 3


def grows_with_its_length(read: Callable[[str], object], begin: str, unit: str) -> bool:
    """Tell whether a beginning and many times a unit is read in time by the length, by the best of a few attempts.

    A letter ends the text: what a pattern hopes for to the end it has to give up there.
    """
    short, long = (_least_s(read, (begin + unit * length)[: length - 1] + "x") for length in (SHORT, LONG))
    return long < _ALLOWED * short + _NOISE_S


def _least_s(read: Callable[[str], object], text: str) -> float:
    return min(_took_s(read, text) for _ in range(_ATTEMPTS))


def _took_s(read: Callable[[str], object], text: str) -> float:
    begun = time.process_time()  # of this process alone: the machine may be busy
    read(text)
    return time.process_time() - begun
