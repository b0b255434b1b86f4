from collections import Counter
from typing import Any

import pytest
from msgspec.structs import replace

from central.balance import Places, balance
from models.contracts.scalars import EventId
from models.contracts.verdict import CENTRAL, Verdict
from tests.fakes.verdicts import verdict


def said(name: str, route: str, revision: int = 0) -> Verdict:
    return verdict(id=EventId(name), text=f"text of {name}", route=route, revision=revision, gateway="gw-1")


SURE, ASKED, ANSWERED = said("1", "accepted"), said("2", "escalated"), said("2", "review", CENTRAL)
WHOLE = Places(
    fed=Counter({("gw-1", "text of 1"): 1, ("gw-1", "text of 2"): 1}),
    first={"1": SURE, "2": ASKED},
    standing={"1": SURE, "2": ANSWERED},
    topic=[SURE, ASKED, ASKED, ANSWERED],
    warehouse=[("1", 0), ("2", CENTRAL)],
    waiting=["2"],
)


def test_a_repeat_in_kafka_is_no_loss_and_no_double() -> None:
    found = balance(WHOLE)

    assert found.holds
    assert (found.events, found.judged, found.asked, found.answered, found.reviewed) == (2, 2, 1, 1, 1)


@pytest.mark.parametrize(
    ("changed", "lost", "doubled"),
    [
        ({"first": {"1": SURE}, "standing": {"1": SURE}}, {"gateways": 1, "answers at the gateways": 1}, {}),
        ({"topic": [SURE, ASKED], "waiting": []}, {"answers of the centre": 1, "warehouse": 1}, {}),
        ({"standing": {"1": SURE, "2": ASKED}}, {"answers at the gateways": 1}, {}),
        ({"warehouse": [("1", 0)]}, {"warehouse": 1}, {}),
        ({"warehouse": [("1", 0), ("2", 0)]}, {"warehouse": 1}, {}),
        ({"warehouse": [("1", 0), ("1", 0), ("2", CENTRAL)]}, {}, {"warehouse": 1}),
        ({"waiting": []}, {"queue": 1}, {}),
        ({"waiting": ["2", "2"]}, {}, {"queue": 1}),
        ({"waiting": ["1", "2"]}, {}, {"queue": 1}),
        ({"topic": [ASKED, ANSWERED], "warehouse": [("2", CENTRAL)]}, {"kafka": 1}, {}),
    ],
)
def test_whoever_lacks_an_event_or_has_it_twice_is_named(
    changed: dict[str, Any], lost: dict[str, int], doubled: dict[str, int]
) -> None:
    found = balance(Places(**{name: getattr(WHOLE, name) for name in WHOLE.__struct_fields__} | changed))

    assert (found.lost, found.doubled) == (lost, doubled)


def test_a_verdict_on_what_nobody_sent_is_one_too_many() -> None:
    strange = replace(SURE, id=EventId("3"))
    found = balance(
        Places(
            fed=WHOLE.fed,
            first={**WHOLE.first, "3": strange},
            standing={**WHOLE.standing, "3": strange},
            topic=[*WHOLE.topic, strange],
            warehouse=[*WHOLE.warehouse, ("3", 0)],
            waiting=WHOLE.waiting,
        )
    )

    assert found.doubled == {"gateways": 1}
