"""What stays where there is no room for all: what is needed, and no more bytes than were asked for."""

from sys import getsizeof

from hypothesis import given
from hypothesis import strategies as st

from dataflows.cache.entry import Entry
from dataflows.cache.shelf import Shelf

PLENTY = 1 << 20


def entry(used_at: float = 0.0) -> Entry:
    return Entry(packed=b"", label=0, sure=True, since=0.0, used_at=used_at)


def shelf(entries: int, key_bytes: int = PLENTY) -> Shelf:
    made = Shelf()
    made.limit(entries, key_bytes)
    return made


def hit(on: Shelf, key: str, times: int) -> None:
    for _ in range(times):
        found = on.get(key)
        assert found is not None
        on.hit(key, found)


def test_long_keys_are_as_few_as_their_bytes_allow() -> None:
    keys = [f"{number} " + "\N{GRINNING FACE}" * 8000 for number in range(40)]
    room = 10 * getsizeof(keys[-1])
    on = shelf(1000, room)
    evicted = sum(on.add(key, entry()) for key in keys)

    kept = [key for key, _ in on.items()]
    assert (len(kept), evicted) == (10, 30)
    assert kept == keys[-10:]


@given(st.lists(st.tuples(st.sampled_from("ahdl"), st.integers(0, 9)), max_size=60))
def test_no_more_bytes_are_counted_than_there_are_keys(steps: list[tuple[str, int]]) -> None:
    on = shelf(6)
    for step, number in steps:
        key = f"key {number}"
        if step == "a" and on.get(key) is None:
            on.add(key, entry(number))
        elif step == "h" and on.get(key) is not None:
            hit(on, key, 1)
        elif step == "d":
            on.drop(key)
        elif step == "l":
            on.limit(number, PLENTY)
            on.drop_idle(number)

    assert on._bytes == sum(getsizeof(key) for key, _ in on.items())


def test_one_that_was_busy_once_does_not_shield_the_others_from_being_displaced() -> None:
    on = shelf(100)
    for number in range(80):
        on.add(f"old {number}", entry())
        hit(on, f"old {number}", 3000 if number == 0 else 2)
    on.add("new", entry())
    hit(on, "new", 5)
    for number in range(25):
        on.add(f"once {number}", entry())

    assert on.get("new") is not None
    assert on.get("old 0") is not None


def test_what_nobody_needs_goes_without_being_looked_for() -> None:
    on = shelf(100)
    for number in range(80):
        on.add(f"old {number}", entry(used_at=number))
        hit(on, f"old {number}", 1)

    assert on.drop_idle(since=60) == 60
    assert len(on) == 20
