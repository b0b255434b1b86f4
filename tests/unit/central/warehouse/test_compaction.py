from collections.abc import Callable, Sequence
from pathlib import Path
from shutil import copytree
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from central.deliveries.warehouse import WarehouseCarrier
from central.warehouse.compaction import compact, compact_all, sliced
from central.warehouse.layout import is_settled
from central.warehouse.storage import Storage, open_storage
from central.warehouse.tables import VERDICTS
from models.contracts.errors import UnavailableError
from models.contracts.verdict import Verdict
from models.contracts.wire import encode
from tests.fakes.verdicts import verdict
from tests.fakes.warehouse import rows, standing, state

DAY, DAY_MS = "2023-11-14", 1_699_920_000_000
AT_ONCE = -60.0  # what was replaced is deleted with the next compaction, whatever the clock of the disk says


def deliver(url: object, *verdicts: Verdict) -> None:
    assert WarehouseCarrier(str(url), clock=lambda: 1.0).deliver([encode(each) for each in verdicts]) == []


def at(minute: int, **changed: Any) -> Verdict:
    return verdict(received_at_ms=DAY_MS + minute * 60_000, **changed)


def files(url: object) -> list[str]:
    return [found.name for found in open_storage(str(url)).files("verdicts")]


class Watched(Storage):
    """A storage that tells of each change to it, once it is made."""

    def __init__(self, url: str, changed: Callable[[], None]) -> None:
        real = open_storage(url)
        super().__init__(real.url, real.filesystem, real.path("").rstrip("/"))
        self._changed = changed

    def put(self, name: str, content: pa.Buffer) -> None:
        super().put(name, content)
        self._changed()

    def delete(self, name: str) -> None:
        super().delete(name)
        self._changed()


def test_a_compacted_day_is_one_file_with_every_revision_once_in_the_order_of_time(tmp_path: Path) -> None:
    deliver(tmp_path, at(125, id="c"), at(1, id="a", label="critical"))
    deliver(tmp_path, at(61, id="b"), at(1, id="a", label="critical"))
    deliver(tmp_path, at(1, id="a", revision=1000, label="benign"))

    done = compact(open_storage(str(tmp_path)), VERDICTS, DAY)

    assert done is not None
    assert (done.files, done.rows) == (3, 4)
    (settled,) = filter(is_settled, files(tmp_path))
    found = pq.read_table(tmp_path / settled, columns=["id", "revision", "label", "superseded"]).to_pylist()
    assert [tuple(row.values()) for row in found] == [
        ("a", 0, "critical", True),
        ("a", 1000, "benign", False),
        ("b", 0, "critical", False),
        ("c", 0, "critical", False),
    ]


def test_what_was_replaced_stays_for_those_who_read_it_and_goes_with_a_later_compaction(tmp_path: Path) -> None:
    deliver(tmp_path, at(0, id="a"))
    deliver(tmp_path, at(0, id="b"))
    storage = open_storage(str(tmp_path))

    assert compact(storage, VERDICTS, DAY) is not None
    assert [is_settled(name) for name in files(tmp_path)] == [False, False, True]
    assert compact(storage, VERDICTS, DAY) is None
    assert len(files(tmp_path)) == 3
    assert compact(storage, VERDICTS, DAY, kept_s=AT_ONCE) is None
    assert [is_settled(name) for name in files(tmp_path)] == [True]
    assert standing(tmp_path) == [("a", 0, "critical"), ("b", 0, "critical")]


def test_what_a_crash_left_goes_too_once_it_is_old(tmp_path: Path) -> None:
    deliver(tmp_path, at(0, id="a"))
    left = tmp_path / "verdicts" / f"day={DAY}" / ".unfinished-7-part-0.parquet"
    left.write_bytes(b"half a file")

    compact(open_storage(str(tmp_path)), VERDICTS, DAY)
    assert left.exists()
    compact(open_storage(str(tmp_path)), VERDICTS, DAY, kept_s=AT_ONCE)
    assert not left.exists()


def test_every_day_of_every_table_is_compacted_and_then_nothing_is_left_to_do(tmp_path: Path) -> None:
    for minute in (0, 1, 24 * 60, 24 * 60 + 1):
        deliver(tmp_path, at(minute, id=f"m{minute}"))

    done = [(each.table, each.day, each.files) for each in compact_all(open_storage(str(tmp_path)))]

    assert done == [("verdicts", DAY, 2), ("verdicts", "2023-11-15", 2)]
    assert list(compact_all(open_storage(str(tmp_path)))) == []


def test_an_id_that_comes_again_with_another_time_of_the_same_day_stands_once(tmp_path: Path) -> None:
    deliver(tmp_path, at(59, id="a"), at(300, id="b"))
    deliver(tmp_path, at(61, id="a"))
    before = rows(tmp_path, "SELECT id, received_at FROM verdicts ORDER BY ALL")

    compact(open_storage(str(tmp_path)), VERDICTS, DAY)

    assert rows(tmp_path, "SELECT id, received_at FROM verdicts ORDER BY ALL") == before
    assert before[0] == ("a", "2023-11-14T00:59:00Z")


def test_a_file_that_cannot_be_read_is_an_outage_and_nothing_is_replaced(tmp_path: Path) -> None:
    deliver(tmp_path, at(0, id="a"))
    deliver(tmp_path, at(0, id="b"))
    torn = tmp_path / files(tmp_path)[0]
    torn.write_bytes(torn.read_bytes()[:-100])

    with pytest.raises(UnavailableError, match=f"warehouse {tmp_path}: cannot be read: .*{torn.name}"):
        compact(open_storage(str(tmp_path)), VERDICTS, DAY)

    assert not any(map(is_settled, files(tmp_path)))


def test_without_a_place_to_work_in_it_is_an_outage_and_nothing_is_replaced(tmp_path: Path) -> None:
    deliver(tmp_path, at(1, id="a"))
    deliver(tmp_path, at(2, id="b"))

    with pytest.raises(UnavailableError, match=r"nowhere/.*: no place to compact in: No such file or directory"):
        compact(open_storage(str(tmp_path)), VERDICTS, DAY, scratch=tmp_path / "nowhere")
    assert len(files(tmp_path)) == 2


def test_a_day_is_merged_within_its_memory(tmp_path: Path) -> None:
    text = "x" * 2000
    for part in range(10):
        deliver(tmp_path, *(at(7, id=f"{part}.{number}", text=f"{number} {text}") for number in range(2000)))

    done = compact(open_storage(str(tmp_path)), VERDICTS, DAY, memory_bytes=32 << 20)

    assert done is not None
    assert done.rows == 20_000  # 40 MB of text, all of one second
    assert rows(tmp_path, "SELECT count(*), count(DISTINCT id) FROM verdicts") == [(20_000, 20_000)]


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 60))
def test_slices_are_no_larger_than_wanted_and_leave_no_second_out(sizes: list[int], most: int) -> None:
    seconds = [(10 * number, size) for number, size in enumerate(sizes)]

    found = list(sliced(seconds, most))

    held = [[(second, size) for second, size in seconds if begin <= second < end] for begin, end, _ in found]
    assert [each for slice_ in held for each in slice_] == seconds
    for slice_, (_, _, lots) in zip(held, found, strict=True):
        size = sum(size for _, size in slice_)
        assert size <= most * lots
        assert lots == 1 or len(slice_) == 1


def test_a_crash_after_any_step_changes_nothing_that_a_reader_sees(tmp_path: Path) -> None:
    url = tmp_path / "warehouse"
    deliver(url, at(0, id="a"), at(0, id="b"))
    deliver(url, at(0, id="b"), at(70, id="c"))
    # The day has been compacted before, so that there is something to delete; and then something came.
    assert compact(open_storage(str(url)), VERDICTS, DAY) is not None
    deliver(url, at(0, id="a", revision=1000, label="benign"))
    seen = state(url)
    left: list[Path] = []

    def keep() -> None:
        left.append(tmp_path / str(len(left)))
        copytree(url, left[-1])

    for _ in range(2):
        compact(Watched(str(url), keep), VERDICTS, DAY, kept_s=AT_ONCE)

    assert len(left) == 5  # the two parts were deleted, a file put, and the other part and the first file deleted
    for crashed in left:
        assert state(crashed) == seen
        for _ in range(2):
            compact(open_storage(str(crashed)), VERDICTS, DAY, kept_s=AT_ONCE)
        assert state(crashed) == seen
        assert [is_settled(name) for name in files(crashed)] == [True]


SAID = st.builds(
    lambda id_, minute, revision, said: at(minute, id=id_, revision=revision, label=said[0], release=said[1]),
    st.sampled_from("abc"),
    st.sampled_from([5, 61]),
    st.sampled_from([0, 1, 1000]),
    st.sampled_from([("benign", "r-1"), ("critical", "r-1"), ("critical", "r-2")]),
)
DELIVERIES = st.lists(st.lists(SAID, min_size=1, max_size=4), min_size=1, max_size=4)


def first_copy(each: Verdict) -> tuple[Any, ...]:
    """Of copies of one revision that differ, the first in this order stands."""
    return each.received_at_ms, {"r-2": 0, "r-1": 1}[each.release], each.label


def expected(deliveries: Sequence[Sequence[Verdict]]) -> list[tuple[Any, ...]]:
    by_revision: dict[tuple[str, int], Verdict] = {}
    for each in sorted((each for delivery in deliveries for each in delivery), key=first_copy):
        by_revision.setdefault((each.id, each.revision), each)
    return sorted((id_, revision, each.label, each.release) for (id_, revision), each in by_revision.items())


@settings(max_examples=12)
@given(DELIVERIES.flatmap(lambda all_: st.tuples(st.just(all_), st.permutations([*all_, *all_[:2]]))), st.data())
def test_deliveries_in_any_order_and_repeated_and_compacted_meanwhile_say_the_same(
    both: tuple[list[list[Verdict]], list[list[Verdict]]], data: st.DataObject
) -> None:
    once, shuffled = both
    with TemporaryDirectory() as url:
        for delivery in shuffled:
            deliver(url, *delivery)
            if data.draw(st.booleans()):
                list(compact_all(open_storage(url), kept_s=data.draw(st.sampled_from([AT_ONCE, 3600.0]))))
        history = rows(url, "SELECT id, revision, label, release FROM history ORDER BY ALL")
        stands = rows(url, "SELECT id, revision, label, release FROM verdicts ORDER BY ALL")

    assert history == expected(once)
    assert stands == list({row[0]: row for row in history}.values())  # of each id the last, which is the highest
