from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Thread
from time import monotonic

import pytest

from dataflows.backoff import Backoff
from dataflows.connectors.backlog import Backlog
from dataflows.connectors.courier import Courier, CourierSink, Limits
from dataflows.observer import Unobserved
from models.contracts import wire
from models.contracts.errors import UnavailableError
from models.contracts.event import DeadLetter
from tests.fakes.carrier import FarEnd

QUICK = Backoff(first_s=0.01, most_s=0.05)
Start = Callable[..., Courier]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts couriers over one backlog; what is left running is stopped at the end."""
    running = []

    def begin(far_end: FarEnd, stop: Event | None = None, **limits: object) -> Courier:
        courier = Courier(
            "siem",
            far_end.carrier,
            tmp_path / "backlog.sqlite3",
            limits=Limits(**({"backoff": QUICK} | limits)),
            stop=stop if stop is not None else Event(),
            observer=Unobserved(),
            refuse=lambda _payload, _reason: None,
        )
        running.append((courier, far_end))
        return courier

    yield begin
    for courier, far_end in running:
        far_end.up()
        courier.close()


def numbered(start: int, stop: int) -> list[bytes]:
    return [str(n).encode() for n in range(start, stop)]


def on_disk(tmp_path: Path) -> list[bytes]:
    backlog = Backlog(tmp_path / "backlog.sqlite3", 1 << 30)
    try:
        return backlog.after(backlog.trimmed, 1 << 30, 1 << 30)[1]
    finally:
        backlog.close()


def test_a_far_end_that_works_has_everything_when_the_epoch_ends_and_nothing_touches_the_disk(
    start: Start, tmp_path: Path
) -> None:
    far_end = FarEnd()
    courier = start(far_end)

    courier.put(numbered(0, 1000))
    courier.settle()

    assert far_end.received == numbered(0, 1000)
    assert on_disk(tmp_path) == []


def test_what_a_far_end_that_is_away_did_not_take_is_on_disk_when_the_epoch_ends(start: Start, tmp_path: Path) -> None:
    far_end = FarEnd()
    far_end.down()
    courier = start(far_end)

    courier.put(numbered(0, 10))
    courier.settle()

    assert on_disk(tmp_path) == numbered(0, 10)


def test_a_far_end_that_is_known_to_be_away_costs_the_flow_no_wait(start: Start) -> None:
    far_end = FarEnd()
    far_end.down()
    courier = start(far_end, patience_s=30.0)
    courier.put([b"first"])
    far_end.until(lambda: far_end.attempts >= 2)

    began = monotonic()
    for n in range(20):
        courier.put(numbered(n, n + 1))
        courier.settle()

    assert monotonic() - began < 10


def test_a_far_end_that_hangs_costs_the_flow_its_patience_and_no_more(start: Start, tmp_path: Path) -> None:
    far_end = FarEnd()
    far_end.hang()
    courier = start(far_end, patience_s=0.1)
    courier.put([b"first"])

    began = monotonic()
    courier.settle()

    assert 0.1 <= monotonic() - began < 10
    assert on_disk(tmp_path) == [b"first"]


def test_what_was_on_its_way_while_it_went_to_disk_is_delivered_once(start: Start, tmp_path: Path) -> None:
    far_end = FarEnd()
    far_end.hang()
    courier = start(far_end, patience_s=0.05, batch_payloads=4)
    courier.put(numbered(0, 10))
    far_end.until(lambda: far_end.attempts == 1)
    courier.settle()

    far_end.up()
    far_end.until(lambda: len(far_end.received) >= 10)
    courier.put(numbered(10, 12))
    far_end.until(lambda: len(far_end.received) >= 12)
    courier.close()

    assert far_end.received == numbered(0, 12)
    assert on_disk(tmp_path) == []


def test_a_long_outage_is_made_up_for_in_order(start: Start, tmp_path: Path) -> None:
    far_end = FarEnd()
    courier = start(far_end)
    courier.put(numbered(0, 5))
    courier.settle()
    far_end.down()
    for epoch in range(1, 10):
        courier.put(numbered(epoch * 5, epoch * 5 + 5))
        courier.settle()

    far_end.up()
    far_end.until(lambda: len(far_end.received) >= 50)
    courier.put(numbered(50, 55))
    far_end.until(lambda: len(far_end.received) >= 55)
    courier.close()

    assert far_end.received == numbered(0, 55)
    assert on_disk(tmp_path) == []


def test_a_restart_delivers_the_backlog_before_anything_new(start: Start) -> None:
    away, back = FarEnd(), FarEnd()
    away.down()
    first = start(away)
    first.put(numbered(0, 10))
    first.settle()
    first.close()

    second = start(back)
    second.put(numbered(10, 12))
    back.until(lambda: len(back.received) >= 12)

    assert back.received == numbered(0, 12)


def test_a_full_backlog_makes_the_flow_wait_until_there_is_room(start: Start) -> None:
    far_end = FarEnd()
    far_end.down()
    courier = start(far_end, backlog_bytes=1000)
    courier.put([b"x" * 900])
    courier.settle()
    courier.put([b"y" * 200])
    settled = Event()

    def settle() -> None:
        courier.settle()
        settled.set()

    flow = Thread(target=settle, daemon=True)
    flow.start()
    attempts = far_end.attempts
    far_end.until(lambda: far_end.attempts > attempts + 5)
    assert not settled.is_set()

    far_end.up()
    assert settled.wait(20)
    far_end.until(lambda: len(far_end.received) == 2)
    assert far_end.received == [b"x" * 900, b"y" * 200]


def test_a_flow_that_is_told_to_stop_does_not_wait_for_a_full_backlog_and_loses_nothing(
    start: Start, tmp_path: Path
) -> None:
    far_end = FarEnd()
    far_end.down()
    stop = Event()
    courier = start(far_end, stop, backlog_bytes=1000)
    courier.put([b"x" * 900])
    courier.settle()
    courier.put([b"y" * 200])

    stop.set()
    began = monotonic()
    courier.settle()
    courier.close()

    assert monotonic() - began < 5
    assert on_disk(tmp_path) == [b"x" * 900, b"y" * 200]


def test_more_than_the_memory_may_hold_goes_to_disk_within_the_epoch(start: Start, tmp_path: Path) -> None:
    far_end = FarEnd()
    far_end.down()
    courier = start(far_end, memory_bytes=100)

    courier.put([b"x" * 60, b"y" * 60])

    assert on_disk(tmp_path) == [b"x" * 60, b"y" * 60]


def test_closing_does_not_wait_for_a_delivery_that_hangs(start: Start, tmp_path: Path) -> None:
    far_end = FarEnd()
    far_end.hang()
    stop = Event()
    courier = start(far_end, stop, patience_s=30.0)
    courier.put([b"first"])
    far_end.until(lambda: far_end.attempts == 1)

    stop.set()
    began = monotonic()
    courier.settle()
    courier.close()

    assert monotonic() - began < 2
    assert on_disk(tmp_path) == [b"first"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_courier_that_dies_of_a_fault_stops_the_flow_with_the_reason(start: Start) -> None:
    class Broken(FarEnd):
        def deliver(self, payloads: object) -> object:
            raise ZeroDivisionError("a fault of ours")

    courier = start(Broken())
    courier.put([b"first"])

    with pytest.raises(UnavailableError, match=r"siem: its courier died.*a fault of ours"):
        courier.settle()


def sink(far_end: FarEnd, backlog: Path, dead_letters: CourierSink[DeadLetter] | None = None) -> CourierSink[bytes]:
    return CourierSink(
        "mqtt", far_end.carrier, list, backlog, stop=Event(), limits=Limits(backoff=QUICK), dead_letters=dead_letters
    )


def test_a_payload_that_the_far_end_refuses_is_a_dead_letter_and_the_others_arrive(tmp_path: Path) -> None:
    far_end, letters_end = FarEnd(), FarEnd()
    far_end.refuse = lambda payload: "too large for it" if payload == b"big" else ""
    letters: CourierSink[DeadLetter] = CourierSink(
        "letters",
        letters_end.carrier,
        lambda found: [wire.encode(letter) for letter in found],
        tmp_path / "l",
        stop=Event(),
    )
    outlet = sink(far_end, tmp_path / "m", letters)
    part = outlet.build_part("mqtt", "courier", None)

    part.write_batch([[b"a", b"big", b"b"]])
    part.snapshot()
    part.close()
    letters.close()

    assert far_end.received == [b"a", b"b"]
    letter = wire.decode_dead_letter(letters_end.received[0])
    assert (letter.reason, letter.detail, letter.raw) == ("refused-by-sink", "mqtt: too large for it", b"big")


def test_a_refused_payload_is_not_forgotten_before_its_dead_letter_is_safe(tmp_path: Path) -> None:
    far_end, letters_end = FarEnd(), FarEnd()
    far_end.refuse = lambda payload: "too large for it" if payload == b"big" else ""
    letters_end.down()
    letters: CourierSink[DeadLetter] = CourierSink(
        "letters",
        letters_end.carrier,
        lambda found: [wire.encode(letter) for letter in found],
        tmp_path / "l",
        stop=Event(),
        limits=Limits(backoff=QUICK),
    )
    outlet = sink(far_end, tmp_path / "m", letters)

    outlet.deposit([b"big"])
    outlet.close()
    letters.close()

    backlog = Backlog(tmp_path / "l", 1 << 30)
    assert [wire.decode_dead_letter(letter).raw for letter in backlog.after(0, 1 << 30, 10)[1]] == [b"big"]
    backlog.close()


def test_a_sink_that_ran_can_run_again(tmp_path: Path) -> None:
    far_end = FarEnd()
    outlet = sink(far_end, tmp_path / "m")

    for payload in (b"one", b"two"):
        part = outlet.build_part("mqtt", "courier", None)
        part.write_batch([[payload]])
        part.snapshot()
        part.close()

    assert far_end.received == [b"one", b"two"]
    assert far_end.closed == 2


class Counting(Unobserved):
    """Counts how often it is told that the flow waits."""

    def __init__(self) -> None:
        self.waits = 0

    def waiting(self, sink: str) -> None:
        assert sink == "siem"
        self.waits += 1


def test_a_flow_that_waits_for_a_full_backlog_says_so_again_and_again(tmp_path: Path) -> None:
    far_end, observer = FarEnd(), Counting()
    far_end.down()
    courier = Courier(
        "siem",
        far_end.carrier,
        tmp_path / "backlog.sqlite3",
        limits=Limits(backoff=QUICK, backlog_bytes=10),
        stop=Event(),
        observer=observer,
        refuse=lambda _payload, _reason: None,
    )
    courier.put([b"x" * 100])
    courier.settle()  # what is longer than the backlog may be fits into an empty one
    courier.put([b"y"])
    flow = Thread(target=courier.settle)
    flow.start()
    deadline = monotonic() + 10
    while observer.waits < 3 and monotonic() < deadline:
        flow.join(0.01)
    assert flow.is_alive()
    assert observer.waits >= 3
    far_end.up()
    flow.join(10)
    assert not flow.is_alive()
    courier.close()


def test_a_far_end_is_away_as_long_as_it_fails_or_older_payloads_wait_for_it(start: Start) -> None:
    far_end = FarEnd()
    courier = start(far_end, patience_s=0.05)
    assert not courier.away

    far_end.down()
    courier.put(numbered(0, 3))
    far_end.until(lambda: far_end.attempts > 0)
    courier.settle()
    assert courier.away

    far_end.up()
    far_end.until(lambda: len(far_end.received) == 3)
    courier.put(numbered(3, 4))
    courier.settle()
    assert not courier.away


def test_a_far_end_that_hangs_is_away_once_the_epoch_could_not_wait_for_it(start: Start) -> None:
    far_end = FarEnd()
    courier = start(far_end, patience_s=0.05)
    far_end.hang()
    courier.put(numbered(0, 3))
    courier.settle()

    assert courier.away
    far_end.up()
