"""What waits is committed in order; what does not fit is lost, held or left, as its source can bear, and counted."""

import os
import threading
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from dataflows.connectors.group_commit import SOURCE_MAX_BYTES, Delivery, GroupCommit, Refusal
from dataflows.connectors.spool import NOTHING, Arrival, Notes, Receipt, Spool, SpoolReader
from tests.real.intake import wait_until

LIMIT = 1 << 20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.sqlite3"


@pytest.fixture
def reader(path: Path) -> Iterator[SpoolReader]:
    reader = SpoolReader(path)
    yield reader
    reader.close()


@pytest.fixture
def commit(path: Path) -> Iterator[GroupCommit]:
    commit = GroupCommit(Spool(path, LIMIT))
    yield commit
    if commit._thread.is_alive():
        commit.close()


def delivery(*records: bytes, source: str = "hosts", refusal: Refusal = Refusal.HOLD, at_ms: int = 7) -> Delivery:
    return Delivery(Arrival(source, at_ms, list(records)), refusal)


def stored(reader: SpoolReader) -> list[bytes]:
    return [record for row in reader.read(0, 100_000) for record in row.arrival.records]


def test_a_delivery_is_told_of_only_when_another_process_could_read_it(
    commit: GroupCommit, reader: SpoolReader
) -> None:
    seen: list[list[bytes]] = []
    commit.start()
    commit.offer(Delivery(Arrival("hosts", 7, [b"a"]), Refusal.HOLD, lambda: seen.append(stored(reader))))
    wait_until(lambda: seen, "the callback")

    assert seen == [[b"a"]]


def test_commits_begin_apart_however_often_something_comes(path: Path) -> None:
    began: list[float] = []

    class Watched(Spool):
        def append(self, arrivals: Sequence[Arrival], notes: Notes = NOTHING) -> None:
            began.append(time.monotonic())
            super().append(arrivals, notes)

    commit = GroupCommit(Watched(path, LIMIT))
    commit.start()
    for n in range(100):
        commit.offer(delivery(b"%d" % n))
        time.sleep(0.001)
    commit.close()

    assert len(began) > 1
    # Closing waits for nobody.
    assert all(later - earlier >= 0.0045 for earlier, later in pairwise(began[:-1]))


def test_deliveries_of_many_threads_are_all_stored_and_each_threads_in_order(
    commit: GroupCommit, reader: SpoolReader
) -> None:
    commit.start()

    def deliver(name: str) -> None:
        for n in range(500):
            commit.offer(delivery(b"%d" % n, source=name))

    threads = [threading.Thread(target=deliver, args=(f"source{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    commit.close()

    rows = [row.arrival for row in reader.read(0, 100_000)]
    for n in range(4):
        records = [record for row in rows if row.source == f"source{n}" for record in row.records]
        assert records == [b"%d" % number for number in range(500)]
    assert reader.status().counters.events == {f"source{n}": 500 for n in range(4)}


def test_what_waits_together_shares_a_row_unless_its_time_or_its_positions_forbid_it(
    commit: GroupCommit, reader: SpoolReader
) -> None:
    for each in (
        delivery(b"a", at_ms=100),
        delivery(b"b", at_ms=105),
        delivery(b"x", source="other", at_ms=105),
        delivery(b"c", at_ms=106),
        delivery(b"d", at_ms=101),
        Delivery(Arrival("hosts", 101, [b"e"], "f00d", ["9"]), Refusal.REPEAT),
        delivery(b"f", at_ms=101),
    ):
        commit.offer(each)
    commit.start()
    commit.close()

    assert [row.arrival for row in reader.read(0, 100)] == [
        Arrival("hosts", 100, [b"a", b"b"]),
        Arrival("other", 105, [b"x"]),
        Arrival("hosts", 106, [b"c"]),
        Arrival("hosts", 101, [b"d"]),
        Arrival("hosts", 101, [b"e"], "f00d", ["9"]),
        Arrival("hosts", 101, [b"f"]),
    ]


def test_each_record_of_a_shared_row_keeps_its_topic(commit: GroupCommit, reader: SpoolReader) -> None:
    for n in range(3):
        commit.offer(Delivery(Arrival("bus", 7, [b"%d" % n], topics=[f"devices/{n}/log"]), Refusal.REPEAT))
    commit.start()
    commit.close()

    (row,) = reader.read(0, 100)
    assert row.arrival == Arrival(
        "bus", 7, [b"0", b"1", b"2"], topics=["devices/0/log", "devices/1/log", "devices/2/log"]
    )


def test_marks_and_receipts_are_stored_with_their_records(commit: GroupCommit, path: Path) -> None:
    commit.offer(
        Delivery(Arrival("hosts", 7, [b"a"]), Refusal.REPEAT, mark=b"here", receipts=(Receipt(0, 0, 5, b"digest"),))
    )
    commit.start()
    commit.close()

    spool = Spool(path, LIMIT)
    assert spool.mark("hosts") == b"here"
    assert spool.receipts("hosts") == [Receipt(0, 0, 5, b"digest")]


def test_a_flood_that_cannot_wait_takes_no_more_than_half_of_a_commit_from_those_who_can(
    path: Path, reader: SpoolReader
) -> None:
    flood = [delivery(b"u" * 60_000, source="udp", refusal=Refusal.LOSE) for _ in range(60)]
    flood_before_stream: list[int] = []
    commit = GroupCommit(Spool(path, 64 << 20))
    for each in flood:
        commit.offer(each)
    stream = Arrival("tcp", 7, [b"t"])
    commit.offer(
        Delivery(stream, Refusal.HOLD, lambda: flood_before_stream.append(reader.status().counters.events["udp"]))
    )
    commit.start()
    commit.close()

    assert flood_before_stream == [18]  # the first beyond 1 MiB is the last
    assert reader.status().counters.events == {"udp": 60, "tcp": 1}


def test_a_full_spool_loses_what_cannot_wait_and_counts_every_one(commit: GroupCommit, reader: SpoolReader) -> None:
    commit.start()
    sent = 0
    for _ in range(400):
        commit.offer(delivery(os.urandom(5000), os.urandom(5000), source="udp", refusal=Refusal.LOSE))
        sent += 2
    commit.close()

    counters = reader.status().counters
    assert reader.status().bytes <= LIMIT
    assert counters.losses["udp", "spool-full"] > 0
    assert counters.events["udp"] == len(stored(reader))
    assert counters.events["udp"] + counters.losses["udp", "spool-full"] == sent


def test_a_full_spool_holds_a_stream_until_there_is_room_and_loses_nothing_of_it(
    commit: GroupCommit, reader: SpoolReader
) -> None:
    commit.start()
    records = [b"%06d" % n + os.urandom(5000) for n in range(400)]
    for record in records:
        commit.offer(delivery(record))
    wait_until(lambda: reader.status().refusing, "a refusal")
    seen: list[bytes] = []
    while len(seen) < len(records):
        rows = wait_until(lambda: reader.read(0, 20), "more rows")
        seen.extend(record for row in rows for record in row.arrival.records)
        reader.trim(rows[-1].seq + 1)

    assert seen == records
    assert reader.status().counters.losses == {}
    commit.close()
    assert not reader.status().refusing


def test_a_refusal_ends_when_there_is_room_again_though_nothing_more_comes(
    commit: GroupCommit, reader: SpoolReader
) -> None:
    commit.start()

    def refused() -> bool:
        commit.offer(delivery(os.urandom(50_000), source="udp", refusal=Refusal.LOSE))
        return reader.status().refusing

    wait_until(refused, "a refusal")
    wait_until(lambda: commit.has_room("udp") and commit._waiting_bytes["udp"] == 0, "everything stored or lost")
    before = reader.status().counters
    reader.trim(reader.span()[1])

    wait_until(lambda: not reader.status().refusing, "the end of the refusal")
    assert reader.status().counters.events == before.events


def test_a_refusal_stays_while_there_is_no_room(commit: GroupCommit, reader: SpoolReader) -> None:
    commit.start()
    commit.offer(delivery(os.urandom(LIMIT - 100_000)))
    commit.offer(delivery(os.urandom(200_000), source="udp", refusal=Refusal.LOSE))
    wait_until(lambda: reader.status().refusing, "a refusal")
    commit.happened("tcp", "connections-idle")
    wait_until(lambda: commit._refused_at + 0.6 < time.monotonic(), "time to look for room")

    assert reader.status().refusing


def test_a_spool_that_took_only_some_of_a_batch_refuses_until_it_takes_a_whole_one(
    commit: GroupCommit, reader: SpoolReader
) -> None:
    commit.offer(delivery(os.urandom(LIMIT - 100_000), source="udp", refusal=Refusal.LOSE))
    for _ in range(6):
        commit.offer(delivery(os.urandom(50_000), source="udp", refusal=Refusal.LOSE))
    with capture_logs() as logged:
        commit.start()
        wait_until(lambda: sum(reader.status().counters.losses.values()) > 0, "a loss")
        commit.happened("tcp", "connections-idle")
        wait_until(lambda: reader.status().counters.incidents, "a count that was written")

        counters = reader.status().counters
        assert counters.events["udp"] > 0
        assert counters.events["udp"] + counters.losses["udp", "spool-full"] == 7
        assert reader.status().refusing
        assert [entry["event"] for entry in logged] == ["spool_refuses"]

        reader.trim(reader.span()[1])
        commit.offer(delivery(b"small", source="udp", refusal=Refusal.LOSE))
        wait_until(lambda: stored(reader) == [b"small"], "what came later")
        wait_until(lambda: len(logged) > 1, "the end of the refusal")
    assert not reader.status().refusing
    assert [entry["event"] for entry in logged] == ["spool_refuses", "spool_takes_again"]


def test_a_refusal_that_an_earlier_process_left_ends_at_the_start_where_there_is_room(
    path: Path, reader: SpoolReader
) -> None:
    spool = Spool(path, LIMIT)
    spool.refuse()
    spool.close()
    assert reader.status().refusing

    commit = GroupCommit(Spool(path, LIMIT))
    commit.start()
    wait_until(lambda: not reader.status().refusing, "the end of the refusal")
    commit.close()


@pytest.mark.parametrize(("refusal", "lost"), [(Refusal.HOLD, 1), (Refusal.REPEAT, 0)])
def test_what_is_held_when_the_end_comes_is_lost_only_where_nobody_has_it_any_more(
    commit: GroupCommit, reader: SpoolReader, refusal: Refusal, lost: int
) -> None:
    commit.start()
    commit.offer(delivery(os.urandom(LIMIT), refusal=refusal))
    wait_until(lambda: reader.status().refusing, "a refusal")
    commit.close(within_s=0.05)

    assert stored(reader) == []
    assert reader.status().counters.losses.get(("hosts", "spool-full"), 0) == lost


def test_what_is_dropped_at_the_end_takes_all_behind_it_along_so_that_no_mark_leads_past_it(
    path: Path, reader: SpoolReader
) -> None:
    spool = Spool(path, LIMIT)
    spool.append([Arrival("old", 7, [b"x" * (LIMIT - 1500)])])
    commit = GroupCommit(spool)
    streamed = [delivery(b"t" * 60_000, source="tcp") for _ in range(35)]  # a whole commit
    fits_not = Delivery(Arrival("file", 7, [b"y" * 3000], "f00d", ["0"]), Refusal.REPEAT, mark=b"behind the first")
    would_fit = Delivery(Arrival("file", 7, [b"z"], "f00d", ["3000"]), Refusal.REPEAT, mark=b"behind the second")
    for each in (fits_not, *streamed, would_fit, delivery(b"t", source="tcp")):
        commit.offer(each)
    commit.start()
    wait_until(lambda: reader.status().refusing, "a refusal")
    commit.close(within_s=0.05)

    assert Spool(path, LIMIT).mark("file") is None
    assert reader.status().counters.events == {"old": 1}
    assert reader.status().counters.losses == {("tcp", "spool-full"): 36}


def test_a_source_is_told_to_stop_at_its_bound_and_to_go_on_when_it_is_stored(commit: GroupCommit) -> None:
    half = b"x" * (SOURCE_MAX_BYTES // 2)
    assert not commit.offer(delivery(half[:-100], refusal=Refusal.LOSE))
    assert commit.offer(delivery(half, b"x" * 100, refusal=Refusal.LOSE))
    assert not commit.wait_for_room("hosts", 0)
    assert commit.wait_for_room("another", 0)
    commit.start()

    assert commit.wait_for_room("hosts", 30)
    commit.close()
    assert commit.has_room("hosts")


def test_counts_without_an_event_are_written_soon(commit: GroupCommit, reader: SpoolReader) -> None:
    commit.start()
    commit.lost("udp", "receive-buffer", 3)
    commit.lost("udp", "receive-buffer", 4)
    commit.happened("tcp", "handshakes-failed")
    wait_until(lambda: reader.status().counters.losses == {("udp", "receive-buffer"): 7}, "the counts")
    assert reader.status().counters.incidents == {("tcp", "handshakes-failed"): 1}


def test_a_disk_that_takes_nothing_is_tried_again_until_the_end(path: Path, reader: SpoolReader) -> None:
    commit = GroupCommit(Spool(path, LIMIT, left_free_bytes=1 << 60))
    commit.start()
    commit.offer(delivery(b"a", b"b", source="udp", refusal=Refusal.LOSE))
    commit.offer(delivery(b"c"))
    wait_until(lambda: reader.status().counters.losses == {("udp", "disk"): 2}, "the loss")
    commit.close(within_s=0.05)

    assert reader.status().counters.losses == {("udp", "disk"): 2, ("hosts", "disk"): 1}
    assert reader.status().counters.events == {}
