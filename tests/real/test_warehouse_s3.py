"""The warehouse on a real S3: signed requests, a server that is killed, one that hangs, and one that is away."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event as Flag
from time import monotonic, sleep

import pyarrow as pa
import pytest

from central.ask import asked
from central.deliveries.warehouse import WarehouseCarrier, examine, gathering
from central.java_server import missing
from central.local_s3 import ACCESS_KEY, SECRET_KEY, LocalS3
from central.warehouse.compaction import compact_all
from central.warehouse.storage import open_storage
from dataflows.connectors.courier import Courier
from dataflows.observer import Unobserved
from models.contracts.errors import UnavailableError
from models.contracts.wire import encode
from tests.conftest import absent, outages
from tests.fakes.verdicts import verdict
from tests.fakes.warehouse import rows, standing

WITHIN_S = 60.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalS3]:
    """One server for all tests; it takes seconds to start."""
    if missing():
        absent(missing())
    running = LocalS3(tmp_path_factory.mktemp("s3"))
    try:
        running.start()
        yield running
    finally:
        running.stop(signal.SIGKILL)


@pytest.fixture
def s3(server: LocalS3, monkeypatch: pytest.MonkeyPatch) -> LocalS3:
    """The server, and who we are there."""
    if not server.runs:
        server.start()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    return server


@pytest.fixture
def url(s3: LocalS3, request: pytest.FixtureRequest) -> str:
    """A place in a bucket of this test's own."""
    bucket = "".join(letter if letter.isalnum() else "-" for letter in request.node.name)[-60:].strip("-")
    s3.make_bucket(bucket)
    return s3.url(bucket, "some/prefix")


def payloads(first: int, count: int, text: str = "") -> list[bytes]:
    return [encode(verdict(id=f"o.{first + number:06}", text=text)) for number in range(count)]


def eventually(true: Callable[[], bool]) -> None:
    deadline = monotonic() + WITHIN_S
    while not true():
        assert monotonic() < deadline, "it does not come about"
        sleep(0.2)


def count(url: str) -> int:
    ((found,),) = rows(url, "SELECT count(*) FROM verdicts")
    return int(found)


def test_what_is_delivered_is_asked_compacted_and_asked_again(url: str) -> None:
    carrier = WarehouseCarrier(url)
    carrier.deliver(payloads(0, 50))
    carrier.deliver(payloads(40, 50))
    carrier.deliver([encode(verdict(id="o.000001", revision=1000, label="benign"))])
    before = standing(url)

    (done,) = compact_all(open_storage(url))

    assert (done.files, done.rows) == (3, 91)
    assert standing(url) == before
    assert before[1] == ("o.000001", 1000, "benign")
    assert len(before) == 90
    assert rows(url, "SELECT DISTINCT day FROM verdicts WHERE day < '2024-01-01'") == [("2023-11-14",)]
    list(compact_all(open_storage(url), kept_s=-60.0))
    assert len(open_storage(url).files("verdicts")) == 1
    assert standing(url) == before
    assert examine(url).state == "ok"


def test_a_file_of_many_parts_is_there_whole(url: str) -> None:
    storage = open_storage(url)
    content = bytes(range(256)) * (100_000)  # 25 MB, which goes up in several requests

    storage.put("verdicts/large", pa.py_buffer(content))

    (found,) = storage.files("verdicts")
    assert (found.name, found.bytes) == ("verdicts/large", len(content))
    with storage.filesystem.open_input_file(storage.path("verdicts/large")) as file:
        assert file.read() == content


def test_whoever_has_no_right_key_is_told_so(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")

    with pytest.raises(UnavailableError, match=r"part-[0-9a-f]+.parquet cannot be written: .*SIGNATURE_DOES_NOT_MATCH"):
        WarehouseCarrier(url).deliver(payloads(0, 1))
    with pytest.raises(UnavailableError, match=r"cannot be listed: .*SIGNATURE_DOES_NOT_MATCH"):
        count(url)


def test_a_bucket_that_is_not_there_is_an_outage_and_not_made(s3: LocalS3) -> None:
    with pytest.raises(UnavailableError, match=r"nowhere/.*cannot be written"):
        WarehouseCarrier(s3.url("nowhere")).deliver(payloads(0, 1))


def test_a_server_that_hangs_is_an_outage_within_its_time(s3: LocalS3, url: str) -> None:
    storage = open_storage(url, request_s=1.0, attempts=1)
    storage.put("verdicts/a", pa.py_buffer(b"before"))
    s3.hang()
    try:
        begun = monotonic()
        with pytest.raises(UnavailableError, match="verdicts/b cannot be written"):
            storage.put("verdicts/b", pa.py_buffer(b"content"))
        assert monotonic() - begun < WITHIN_S / 2
    finally:
        s3.go_on()

    storage.put("verdicts/b", pa.py_buffer(b"content"))
    assert [found.name for found in storage.files("verdicts")] == ["verdicts/a", "verdicts/b"]


def test_a_query_that_loses_its_server_is_an_outage(s3: LocalS3, url: str) -> None:
    carrier = WarehouseCarrier(url)
    for part in range(40):
        carrier.deliver(payloads(100 * part, 100, text="x" * 10_000))
    with asked("SELECT text FROM _verdicts_fresh", url) as result:  # which is read while one goes through it
        next(result.rows)
        s3.stop(signal.SIGKILL)

        with pytest.raises(UnavailableError, match="cannot be read"):
            list(result.rows)


@outages
def test_nothing_is_lost_or_doubled_while_the_server_is_killed_and_comes_back_in_mid_stream(
    s3: LocalS3, url: str, tmp_path: Path, away_s: float
) -> None:
    stop = Flag()
    courier = Courier(
        "warehouse",
        lambda: WarehouseCarrier(url),
        tmp_path / "backlog.sqlite3",
        limits=gathering(0.05, 1 << 30),
        stop=stop,
        observer=Unobserved(),
        refuse=lambda _payload, reason: pytest.fail(reason),
    )
    told = 0
    try:
        for outage in range(3):
            while told < 2000 * (outage + 1):
                courier.put(payloads(told, 100, text="x" * 2000))
                courier.settle()
                told += 100
                if told % 2000 == 1000:
                    eventually(lambda: any(open_storage(url).files("verdicts")))
                    s3.stop(signal.SIGKILL)
            sleep(away_s)
            s3.start()
        eventually(lambda: count(url) == told)
    finally:
        courier.close()

    assert rows(url, "SELECT count(*), count(DISTINCT id), min(id), max(id) FROM verdicts") == [
        (told, told, "o.000000", f"o.{told - 1:06}")
    ]
