"""A whole centre with two gateways, in which everything is killed, one after the other: nothing is lost."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import cycle, islice
from pathlib import Path
from random import Random
from time import monotonic, sleep

import pytest

from central.balance import Balance
from central.demo import Demo
from central.java_server import missing
from central.local import LocalCentre
from tests.conftest import absent
from tests.faults.gateway import SAMPLE

_LINES = 10  # for each gateway, between two kills
_SETTLES_WITHIN_S = 420.0  # of a machine with two cores that are busy otherwise

SMALL = {"gateway_release": "soc-triage-small", "release": "soc-triage-small"}


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    if missing():
        absent(missing())
    with ExitStack() as opened:
        yield Demo(LocalCentre(tmp_path, opened, **SMALL))


def survives(demo: Demo, chance: Random, *, rounds: int, pause_s: float) -> Balance:
    """Kill everything once a round, in an order that chance gives; return how it stands once all is well again."""
    lines = cycle(SAMPLE)
    victims = demo.centre.victims()
    demo.centre.start()
    for _ in range(rounds):
        for name in chance.sample(sorted(victims), len(victims)):
            for gateway in demo.centre.gateways:
                demo.give(gateway, list(islice(lines, _LINES)))
            sleep(chance.random() * pause_s)
            victims[name].kill()
            sleep(chance.random() * pause_s)
            victims[name].start()
    return settled(demo)


def settled(demo: Demo) -> Balance:
    """Return the balance, once it holds or time is up."""
    deadline = monotonic() + _SETTLES_WITHIN_S
    while True:
        demo.gather()
        found = demo.balance()
        if found.holds or monotonic() > deadline:
            return found
        sleep(1.0)


@pytest.mark.server("mosquitto")
@pytest.mark.timeout(1200)
def test_nothing_is_lost_or_doubled_whoever_is_killed(demo: Demo) -> None:
    found = survives(demo, Random(1), rounds=1, pause_s=2.0)

    assert (found.lost, found.doubled) == ({}, {})
    assert found.events == 2 * _LINES * len(demo.centre.victims())
    assert found.answered == found.asked > 0


@pytest.mark.slow
@pytest.mark.server("mosquitto")
@pytest.mark.timeout(12 * 3600)
def test_nothing_is_lost_or_doubled_for_hours_whoever_is_killed(demo: Demo) -> None:
    rounds = int(os.environ.get("HEADWATER_SOAK_ROUNDS", "60"))
    found = survives(demo, Random(), rounds=rounds, pause_s=10.0)

    assert (found.lost, found.doubled) == ({}, {})
