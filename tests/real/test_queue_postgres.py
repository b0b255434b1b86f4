"""The queue on a real PostgreSQL: all that every database owes; and nothing lost or doubled when it is killed."""

import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Event, Thread
from time import monotonic, sleep

import pytest
from sqlalchemy import create_engine, text

from central.deliveries.queue import QueueCarrier
from central.local_postgres import LocalPostgres, missing
from central.queue.database import Database, database_url
from central.queue.store import Store, Wanted
from dataflows.backoff import Backoff
from dataflows.connectors.courier import CourierSink, Limits
from dataflows.observer import Unobserved
from models.contracts import wire
from models.contracts.errors import UnavailableError
from models.contracts.verdict import CENTRAL, Verdict
from tests.checks.queue_store import CHECKS, NOW, Check, fresh, put, waiting
from tests.conftest import absent, outages
from tests.fakes.verdicts import verdict

OPEN = """
import sys
from central.queue.store import Store
sys.stdin.readline()
Store(sys.argv[1])
"""
KILLS = 3
BATCH = 40
WITHIN_S = 90.0


@pytest.fixture(scope="module")
def server() -> Iterator[LocalPostgres]:
    if missing():
        absent(missing())
    postgres = LocalPostgres()
    try:
        postgres.start()
        yield postgres
    finally:
        postgres.remove()


@pytest.fixture
def postgres(server: LocalPostgres) -> Iterator[LocalPostgres]:
    """The server; it runs again after a test that ended it."""
    yield server
    if not server.runs:
        server.start()


@pytest.fixture
def store(postgres: LocalPostgres) -> Iterator[Store]:
    opened = Store(postgres.url)
    yield opened
    opened.close()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_queue_in_postgresql(check: Check, store: Store) -> None:
    check(store)


def make_database(postgres: LocalPostgres, options: str = "") -> str:
    """Return the URL of a database of its own."""
    name = f"queue_{fresh()}"
    engine = create_engine(postgres.url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} {options}"))
    engine.dispose()
    return postgres.url.replace("/postgres", f"/{name}")


def test_processes_that_open_a_new_database_at_once_all_can(postgres: LocalPostgres) -> None:
    url = make_database(postgres)
    openers = [
        subprocess.Popen([sys.executable, "-c", OPEN, url], stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    try:
        for opener in openers:
            opener.stdin.write(b"go\n")
            opener.stdin.flush()
        assert [opener.communicate(timeout=WITHIN_S)[1].decode() for opener in openers] == [""] * 3
    finally:
        for opener in openers:
            opener.kill()
            opener.wait()

    with closing(Store(url)) as store:
        assert store.page(Wanted(), NOW).total == 0


def test_a_commit_is_on_the_disk_before_it_is_acknowledged_whatever_the_server_is_set_to(
    postgres: LocalPostgres,
) -> None:
    url = make_database(postgres)
    database = Database(database_url(f"{url}?options=-csynchronous_commit%3Doff"))
    with database.reading() as connection:
        assert connection.scalar(text("SHOW synchronous_commit")) == "on"
    database.close()
    database = Database(database_url(f"{url}?options=-csynchronous_commit%3Dremote_apply"))
    with database.reading() as connection:
        assert connection.scalar(text("SHOW synchronous_commit")) == "remote_apply"  # which is more
    database.close()


def test_a_database_that_cannot_hold_every_character_is_not_used(postgres: LocalPostgres) -> None:
    url = make_database(postgres, "TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")

    with pytest.raises(UnavailableError, match="found encoding LATIN1, wanted a database with UTF8"):
        Store(url)


def test_a_server_that_is_away_is_an_outage_that_names_it_without_its_password() -> None:
    with pytest.raises(UnavailableError, match=r"//queue:\*\*\*@127\.0\.0\.1:9/queue: .*Connection refused") as raised:
        Store("postgresql://queue:secret@127.0.0.1:9/queue")

    assert "secret" not in str(raised.value)


def test_a_store_goes_on_where_its_server_was_killed_and_came_back(postgres: LocalPostgres, store: Store) -> None:
    item_id = fresh()
    put(store, waiting(id=item_id))
    postgres.stop(signal.SIGKILL)
    with pytest.raises(UnavailableError, match="what is to be written waits"):
        store.answer(item_id, "alice", "benign", NOW)
    postgres.start()

    assert store.answer(item_id, "alice", "benign", NOW).state == "answered"


class Progress(Unobserved):
    """Counts what the server has acknowledged."""

    def __init__(self) -> None:
        self.acknowledged = 0

    def delivered(self, sink: str, payloads: int) -> None:
        self.acknowledged += payloads

    def reach(self, payloads: int) -> None:
        deadline = monotonic() + WITHIN_S
        while self.acknowledged < payloads:
            assert monotonic() < deadline, f"{self.acknowledged} of {payloads} are acknowledged"
            sleep(0.001)


@outages
def test_nothing_is_lost_or_doubled_while_the_server_is_killed_in_mid_stream(
    postgres: LocalPostgres, tmp_path: Path, away_s: float
) -> None:
    source = fresh()
    asked = [waiting(id=f"{source}.{number}", source=source) for number in range(6000)]
    settled = [verdict(id=each.id, source=source, revision=CENTRAL) for each in asked[::3]]
    stream = [*asked, *settled, *asked[:500]]  # a crash of ours would repeat some
    stop, progress = Event(), Progress()
    sink: CourierSink[Verdict] = CourierSink(
        "queue",
        lambda: QueueCarrier(postgres.url),
        lambda verdicts: [wire.encode(each) for each in verdicts],
        tmp_path / "backlog.sqlite3",
        stop=stop,
        limits=Limits(batch_payloads=BATCH, backoff=Backoff(first_s=0.05, most_s=0.5)),
        observer=progress,
    )

    def feed() -> None:
        partition = sink.build_part("queue", "courier", None)
        for start in range(0, len(stream), BATCH):
            partition.write_batch([stream[start : start + BATCH]])
            if start % (10 * BATCH) == 0:
                partition.snapshot()
        partition.snapshot()

    feeder = Thread(target=feed)
    feeder.start()
    try:
        for number in range(KILLS):
            progress.reach(len(stream) * (number + 1) // (KILLS + 2))
            postgres.stop(signal.SIGKILL)
            assert progress.acknowledged < len(stream)
            sleep(away_s)
            postgres.start()
        feeder.join(WITHIN_S)
        progress.reach(len(stream))
    finally:
        stop.set()
        feeder.join(WITHIN_S)
        sink.close()

    with closing(Store(postgres.url)) as store:
        found = list(everything(store, Wanted(source=source, view="all")))
    assert Counter(item_id for item_id, _ in found) == Counter(each.id for each in asked)
    assert {item_id for item_id, state in found if state == "superseded"} == {each.id for each in settled}
    assert {state for _, state in found} == {"waiting", "superseded"}


def everything(store: Store, wanted: Wanted) -> Iterator[tuple[str, str]]:
    offset = 0
    while items := store.page(wanted, NOW, limit=1000, offset=offset).items:
        yield from ((item.id, item.state) for item in items)
        offset += len(items)
