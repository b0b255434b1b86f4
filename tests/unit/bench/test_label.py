"""Ours and its peers answer for the same events, and what repeats within a window costs neither of them twice."""

from collections.abc import Sequence

from bench.label import each_once, measured, windows


def test_a_peer_answers_equal_texts_of_a_window_once_and_those_of_another_window_again() -> None:
    events = ["a", "b", "a", *(str(number) for number in range(61)), "a", "b", "b"]
    given: list[list[str]] = []

    def peer(texts: Sequence[str]) -> None:
        given.append(list(texts))

    speeds = measured({"peer": each_once(peer)}, events, rounds=1)

    warmed, *rest = given
    assert not set(warmed) & set(events), "what warms a contender up is no event, or it would be its own precedent"
    assert rest == [list(dict.fromkeys(window)) for window in windows(events)]
    assert [len(texts) for texts in rest] == [63, 2]
    assert speeds.events == len(events)
