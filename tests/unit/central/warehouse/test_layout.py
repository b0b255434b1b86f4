import pytest
from hypothesis import given
from hypothesis import strategies as st

from central.warehouse.layout import Layout, counting, day_of, is_settled, laid_out, part_name, settled_name

A, B, C = (part_name("verdicts", "2026-01-31", letter * 32) for letter in "abc")


def replacing(**replaced: set[str]) -> "dict[str, set[str]]":
    return replaced


def test_a_part_is_called_by_its_day_and_what_is_in_it() -> None:
    assert part_name("verdicts", "2026-01-31", "0" * 32) == f"verdicts/day=2026-01-31/part-{'0' * 32}.parquet"
    assert day_of(A) == "2026-01-31"
    assert not is_settled(A)


def test_a_settled_file_is_called_by_what_went_into_it_in_whatever_order() -> None:
    name = settled_name("verdicts", "2026-01-31", [A, B])

    assert name == settled_name("verdicts", "2026-01-31", [B, A])
    assert name != settled_name("verdicts", "2026-01-31", [A, C])
    assert is_settled(name)


@pytest.mark.parametrize(
    "name",
    [
        "verdicts/day=2026-02-30/part-" + "0" * 32 + ".parquet",
        "verdicts/day=2026-01-31/.unfinished-7-part-" + "0" * 32 + ".parquet",
        "verdicts/day=2026-01-31/part-" + "0" * 31 + ".parquet",
        "verdicts/day=2026-01-31",
        "verdicts/notes.txt",
    ],
)
def test_what_is_called_otherwise_is_none_of_ours(name: str) -> None:
    assert day_of(name) is None
    assert laid_out([name], lambda _: []) == Layout()


def test_from_the_moment_that_a_settled_file_is_there_those_in_it_do_not_count() -> None:
    settled = settled_name("verdicts", "2026-01-31", [A, B])

    assert counting([A, B, C], {}.__getitem__) == [A, B, C]
    assert counting([A, B, C, settled], {settled: [A, B]}.__getitem__) == [C, settled]
    assert counting([settled], {}.__getitem__) == [settled]


def test_a_day_with_one_settled_file_is_read_as_it_is_and_others_are_compared() -> None:
    settled = settled_name("verdicts", "2026-01-31", [A])
    other_day = settled_name("verdicts", "2026-02-01", [A])

    found = laid_out([other_day, settled, A, B], {settled: [A], other_day: [A]}.__getitem__)

    assert found == Layout(settled=(other_day,), begun=(settled,), fresh=(B,))


def test_of_two_settled_files_that_nobody_merged_yet_one_counts_as_fresh() -> None:
    one, other = sorted(settled_name("verdicts", "2026-01-31", names) for names in ([A, B], [A, B, C]))

    found = laid_out([A, B, C, one, other], {one: [A, B], other: [A, B, C]}.__getitem__)

    assert (found.begun, found.fresh) == ((one,), (other,))


@given(st.data())
def test_the_rows_of_every_part_count_whoever_compacts_and_deletes_when(data: st.DataObject) -> None:
    """Files are sets of parts; compactors merge what they saw in a listing, which may be an old one."""
    contents: dict[str, frozenset[str]] = {}
    replaced: dict[str, list[str]] = {}
    there: set[str] = set()
    delivered: set[str] = set()
    listings: list[list[str]] = [[]]
    for step in data.draw(st.lists(st.sampled_from(["deliver", "list", "merge", "delete"]), max_size=25)):
        match step:
            case "deliver":  # perhaps once more
                part = data.draw(st.sampled_from([A, B, C]))
                contents[part] = frozenset([part])
                there.add(part)
                delivered.add(part)
            case "list":
                listings.append(counting(sorted(there), replaced.__getitem__))
            case "merge":
                seen = [name for name in data.draw(st.sampled_from(listings)) if name in there]
                # Who finds a file of the listing gone gives up.
                if seen in listings and len(seen) > 1:
                    name = settled_name("verdicts", "2026-01-31", seen)
                    assert name not in seen
                    contents[name] = frozenset().union(*(contents[each] for each in seen))
                    replaced[name] = seen
                    there.add(name)
            case _:
                there -= {gone for name in there if name in replaced for gone in replaced[name]}
        counted = counting(sorted(there), replaced.__getitem__)
        assert frozenset().union(*(contents[name] for name in counted)) == delivered
