from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import asdict

from central.warehouse.tables import ANSWERS, LATEST_MS, VERDICTS, Table, lots, parquet
from dataflows.connectors.courier import Refusal
from models.contracts.answer import Answer
from models.contracts.verdict import Verdict
from models.contracts.wire import encode
from tests.fakes.verdicts import any_verdict, verdict

MIDNIGHT_MS = 1_700_006_400_000  # before the 15th of November 2023


def read(table: Table, records: list[Any], stored_at_ms: int = 7) -> list[dict[str, Any]]:
    file = pq.ParquetFile(pa.BufferReader(parquet(table, records, stored_at_ms)))
    found: list[dict[str, Any]] = file.read().to_pylist(maps_as_pydicts="strict")
    return found


def ms(moment: Any) -> int | None:
    return None if moment is None else round(moment.timestamp() * 1000)


@pytest.mark.parametrize(("table", "record"), [(VERDICTS, Verdict), (ANSWERS, Answer)])
def test_every_field_of_a_record_has_a_column_and_every_column_a_field(table: Table, record: type) -> None:
    columns = {name for name in table.schema.names if name != "stored_at"}

    assert columns == {name.removesuffix("_ms") for name in record.__struct_fields__}


@given(st.lists(any_verdict(), min_size=1, max_size=5))
def test_a_file_says_all_of_its_verdicts(verdicts: list[Verdict]) -> None:
    found = read(VERDICTS, verdicts)

    assert [ms(row.pop("stored_at")) for row in found] == [7] * len(verdicts)
    for row in found:
        row["received_at_ms"], row["occurred_at_ms"] = ms(row.pop("received_at")), ms(row.pop("occurred_at"))
        row["fields"] = {name: tuple(values) for name, values in row["fields"].items()}
    assert found == [asdict(each) for each in verdicts]


def test_a_delivery_is_parted_by_the_day_of_receipt_in_utc() -> None:
    before, after = verdict(id="a", received_at_ms=MIDNIGHT_MS - 1), verdict(id="b", received_at_ms=MIDNIGHT_MS)

    found, refusals = lots(VERDICTS, [encode(after), encode(before)])

    assert [(lot.day, lot.records) for lot in found] == [("2023-11-14", [before]), ("2023-11-15", [after])]
    assert refusals == []


@given(
    st.lists(any_verdict(), min_size=1, max_size=5).flatmap(
        lambda found: st.tuples(st.just(found), st.permutations(found))
    )
)
def test_the_same_records_are_the_same_lots_in_whatever_order_they_come(
    both: tuple[list[Verdict], list[Verdict]],
) -> None:
    one, other = (lots(VERDICTS, [encode(each) for each in verdicts]) for verdicts in both)

    assert one == other


def test_other_records_are_another_lot() -> None:
    one, other = (lots(VERDICTS, [encode(verdict(label=label))])[0][0] for label in ("benign", "critical"))

    assert one.digest != other.digest


def test_what_is_no_verdict_is_refused_and_its_neighbours_are_not() -> None:
    payloads = [encode(verdict(id="a")), b"{nonsense", b'{"type":"verdict/1"}', encode(verdict(id="b"))]

    found, refusals = lots(VERDICTS, payloads)

    assert [record.id for lot in found for record in lot.records] == ["a", "b"]
    assert [refusal.position for refusal in refusals] == [1, 2]
    assert refusals[0].reason.startswith("verdicts: JSON is malformed")


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"policy": 2**63}, "verdicts: `policy`: found 9223372036854775808, wanted at most 9223372036854775807"),
        ({"revision": 2**64}, "verdicts: `revision`: found 18446744073709551616, wanted at most 9223372036854775807"),
        ({"severity": 2**63}, "verdicts: `severity`: found 9223372036854775808, wanted at most 9223372036854775807"),
    ],
)
def test_a_number_that_no_column_has_room_for_is_refused(changed: dict[str, int], reason: str) -> None:
    assert lots(VERDICTS, [encode(verdict(**changed))]) == ([], [Refusal(0, reason)])


def test_the_largest_numbers_have_room() -> None:
    largest = verdict(policy=2**63 - 1, revision=2**63 - 1, received_at_ms=LATEST_MS, occurred_at_ms=LATEST_MS)

    (lot,), refusals = lots(VERDICTS, [encode(largest)])

    assert (lot.day, refusals) == ("9999-12-31", [])
    assert read(VERDICTS, [largest])[0]["policy"] == 2**63 - 1
