from pathlib import Path
from threading import Event as Flag
from time import monotonic

import pytest

from central.deliveries.warehouse import WarehouseCarrier, examine, gathering
from central.warehouse.storage import open_storage
from central.warehouse.tables import ANSWERS
from dataflows.connectors.courier import Courier
from dataflows.observer import Unobserved
from models.contracts.answer import Answer
from models.contracts.errors import ConfigError, UnavailableError
from models.contracts.wire import encode
from tests.fakes.verdicts import verdict
from tests.fakes.warehouse import rows, standing

MIDNIGHT_MS = 1_700_006_400_000


def files(url: object) -> list[str]:
    return [found.name for found in open_storage(str(url)).files("")]


def test_a_delivery_is_one_file_for_each_of_its_days(tmp_path: Path) -> None:
    carrier = WarehouseCarrier(str(tmp_path))

    refusals = carrier.deliver(
        [
            encode(verdict(id="a", received_at_ms=MIDNIGHT_MS - 1)),
            encode(verdict(id="b", received_at_ms=MIDNIGHT_MS)),
            encode(verdict(id="c", received_at_ms=MIDNIGHT_MS)),
        ]
    )

    assert refusals == []
    assert [name.split("/part-")[0] for name in files(tmp_path)] == [
        "verdicts/day=2023-11-14",
        "verdicts/day=2023-11-15",
    ]
    assert rows(tmp_path, "SELECT day, id FROM verdicts ORDER BY ALL") == [
        ("2023-11-14", "a"),
        ("2023-11-15", "b"),
        ("2023-11-15", "c"),
    ]


def test_a_delivery_that_is_made_again_is_the_same_file(tmp_path: Path) -> None:
    carrier = WarehouseCarrier(str(tmp_path))
    batch = [encode(verdict(id=id_)) for id_ in "abc"]

    carrier.deliver(batch)
    once = files(tmp_path)
    carrier.deliver(batch[::-1])

    assert files(tmp_path) == once
    assert len(once) == 1


def test_what_is_no_verdict_is_refused_and_no_file_is_made_of_nothing(tmp_path: Path) -> None:
    (refusal,) = WarehouseCarrier(str(tmp_path)).deliver([b"{nonsense"])

    assert refusal.position == 0
    assert files(tmp_path) == []


def test_no_payloads_are_no_file(tmp_path: Path) -> None:
    assert WarehouseCarrier(str(tmp_path / "nothing")).deliver([]) == []
    assert not (tmp_path / "nothing").exists()


def test_answers_have_a_table_of_their_own(tmp_path: Path) -> None:
    answer = Answer(
        id=verdict().id,
        text="Failed password for root",
        label="benign",
        by="ada",
        at_ms=MIDNIGHT_MS,
        revision=1_000_000,
        model_label="critical",
        confidence=0.6,
        route="review",
        release="soc-triage-1",
        policy=1,
        source="hosts",
    )

    assert WarehouseCarrier(str(tmp_path), ANSWERS).deliver([encode(answer)]) == []

    assert rows(tmp_path, 'SELECT day, id, label, model_label, agrees, "by" FROM answers') == [
        ("2023-11-15", "o.1", "benign", "critical", False, "ada")
    ]


def test_a_courier_that_gathers_makes_a_file_now_and_then_and_not_one_for_each_epoch(tmp_path: Path) -> None:
    stop, url, gather_s, epochs = Flag(), str(tmp_path / "warehouse"), 0.5, 20
    begun = monotonic()
    courier = Courier(
        "warehouse",
        lambda: WarehouseCarrier(url),
        tmp_path / "backlog.sqlite3",
        limits=gathering(gather_s, 1 << 20),
        stop=stop,
        observer=Unobserved(),
        refuse=lambda _payload, reason: pytest.fail(reason),
    )
    try:
        for epoch in range(epochs):
            courier.put([encode(verdict(id=f"{epoch}.{number}")) for number in range(10)])
            courier.settle()
        while len(standing(url)) < 10 * epochs:
            assert monotonic() - begun < 100
            stop.wait(0.1)
    finally:
        courier.close()

    assert len(standing(url)) == 10 * epochs
    assert len(files(url)) <= 3 + (monotonic() - begun) / gather_s


def test_an_examination_says_what_is_there_and_leaves_nothing_behind(tmp_path: Path) -> None:
    WarehouseCarrier(str(tmp_path)).deliver([encode(verdict())])
    before = files(tmp_path)

    found = examine(str(tmp_path))

    assert (found.part, found.state) == ("warehouse", "ok")
    assert found.words.startswith(f"{tmp_path}: can be written; 1 day, 0.0 MiB")
    assert files(tmp_path) == before


def test_a_warehouse_that_cannot_be_written_is_an_outage_and_one_that_is_none_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(UnavailableError, match="cannot be written"):
        examine(str(tmp_path / "file"))
    with pytest.raises(ConfigError, match="wanted a folder or s3://"):
        WarehouseCarrier("ftp://host/path")
