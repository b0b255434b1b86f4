"""Refusals: bounded, and what an audit ended is not displaced by what never answered."""

import pytest

from dataflows.cache import refusals
from dataflows.cache.entry import Refusal
from dataflows.cache.refusals import Refusals


def refusal(*, by_audit: bool = False) -> Refusal:
    return Refusal("name", "the answers differ", 0.0, by_audit)


def test_a_flood_of_templates_that_never_answered_displaces_none_that_an_audit_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(refusals, "_MOST", 5)
    known = Refusals()
    known.add("ended", refusal(by_audit=True))
    for number in range(100):
        known.add(f"flood {number}", refusal())

    assert len(known) == 6
    assert known.meet("ended")
    assert not known.meet("flood 0")


def test_long_keys_are_as_few_as_their_bytes_allow() -> None:
    known = Refusals()
    for number in range(700):
        known.add(f"{number} " + "\N{GRINNING FACE}" * 8000, refusal())

    assert 400 < len(known) < 600


def test_one_that_is_met_again_stays_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "_MOST", 2)
    known = Refusals()
    known.add("a", refusal())
    known.add("b", refusal())
    known.meet("a")
    known.add("c", refusal())

    assert [key for key, _ in known.items()] == ["a", "c"]


def test_one_that_is_refused_again_by_an_audit_counts_once() -> None:
    known = Refusals()
    known.add("a", refusal())
    known.add("a", refusal(by_audit=True))

    assert [one.by_audit for _, one in known.items()] == [True]
    known.drop("a")
    assert "a" not in known
