"""How a step waits for what it needs from outside: at growing intervals, and not for ever."""

from collections.abc import Callable
from random import Random
from typing import TypeVar

import structlog

from dataflows.backoff import Backoff
from models.contracts.errors import UnavailableError

T = TypeVar("T")

log = structlog.get_logger()

PATIENCE = Backoff(first_s=0.2, most_s=5.0, attempts=8)  # about 17 s; then the flow stops, and nothing is lost by that


def patiently(attempt: Callable[[], T], wait: Callable[[float], bool], event: str) -> T:
    """Return what an attempt does at last; `wait(seconds)` returns whether to stop, and `event` is said of each wait.

    Raises:
        UnavailableError: what is outside stayed away, or the flow is to stop.
    """
    try:
        return attempt()
    except UnavailableError as error:
        problem = error
    for delay_s in PATIENCE.delays(Random()):  # noqa: S311 - jitter, not a secret
        log.warning(event, reason=str(problem), wait_s=round(delay_s, 1))
        if wait(delay_s):
            raise problem
        try:
            return attempt()
        except UnavailableError as error:
            problem = error
    raise problem
