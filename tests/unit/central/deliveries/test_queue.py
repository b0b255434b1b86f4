"""Verdicts and incidents, as the courier hands them over, to the queue."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from central.deliveries.queue import QueueCarrier
from central.queue.store import Store, Wanted
from models.contracts import wire
from models.contracts.errors import ConfigError, UnavailableError
from models.contracts.verdict import CENTRAL
from tests.checks.queue_store import NOW, waiting
from tests.fakes.incidents import incident
from tests.fakes.verdicts import verdict

DAY_S = 24 * 3600


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queue.sqlite3"


@pytest.fixture
def now_s() -> list[float]:
    return [NOW / 1000]


@pytest.fixture
def carrier(path: Path, now_s: list[float]) -> Iterator[QueueCarrier]:
    made = QueueCarrier(f"sqlite:///{path}", keep_s=DAY_S, clock=lambda: now_s[0])
    yield made
    made.close()


def listed(path: Path) -> list[str]:
    store = Store(f"sqlite:///{path}")
    try:
        return [item.id for item in store.page(Wanted(), NOW).items]
    finally:
        store.close()


def test_nothing_is_opened_before_the_first_delivery(path: Path, carrier: QueueCarrier) -> None:
    assert not path.exists()
    assert list(carrier.deliver([])) == []
    assert path.exists()


def test_verdicts_and_incidents_wait_and_a_repeat_changes_nothing(path: Path, carrier: QueueCarrier) -> None:
    batch = [wire.encode(record) for record in (waiting(id="o.1", label="benign"), incident(), verdict(id="o.2"))]

    assert list(carrier.deliver(batch)) == []
    assert list(carrier.deliver(batch)) == []
    assert listed(path) == [incident().id, "o.1"]
    carrier.deliver([wire.encode(verdict(id="o.1", revision=CENTRAL))])
    assert listed(path) == [incident().id]


def test_what_is_neither_is_refused_and_its_neighbours_are_taken(path: Path, carrier: QueueCarrier) -> None:
    batch = [wire.encode(waiting(id="o.1")), b"noise", wire.encode(waiting(id="o.2"))]

    (refusal,) = carrier.deliver(batch)

    assert refusal.position == 1
    assert "JSON is malformed" in refusal.reason
    assert listed(path) == ["o.1", "o.2"]


def test_a_database_that_is_away_is_an_outage_and_the_next_delivery_finds_it_back(
    path: Path, carrier: QueueCarrier
) -> None:
    path.mkdir()
    with pytest.raises(UnavailableError, match="unable to open database file"):
        carrier.deliver([wire.encode(waiting(id="o.1"))])
    path.rmdir()

    carrier.deliver([wire.encode(waiting(id="o.1"))])
    assert listed(path) == ["o.1"]


def test_what_was_superseded_is_forgotten_after_its_time(path: Path, carrier: QueueCarrier, now_s: list[float]) -> None:
    late, settling = wire.encode(waiting(id="o.1")), wire.encode(verdict(id="o.1", revision=1))
    carrier.deliver([settling])
    now_s[0] += DAY_S
    carrier.deliver([late])
    assert listed(path) == []

    now_s[0] += DAY_S + 1
    carrier.deliver([])
    carrier.deliver([late])
    assert listed(path) == ["o.1"]


def test_a_url_of_no_database_stops_the_start() -> None:
    with pytest.raises(ConfigError, match="found `oracle://db`, wanted"):
        QueueCarrier("oracle://db")
