"""docs/schemas say what the types say."""

import json
from pathlib import Path

import msgspec
import pytest

from models.contracts.schemas import RECORDS, file_name, schema, write

COMMITTED = Path(__file__).parents[4] / "docs" / "schemas"


def test_the_schemas_in_the_repository_are_current() -> None:
    committed = {path.name: path.read_bytes() for path in COMMITTED.glob("*.json")}

    assert committed == {file_name(record): schema(record) for record in RECORDS}, "run `./just schemas`"


def test_a_schema_of_a_record_that_is_no_more_is_removed(tmp_path: Path) -> None:
    (tmp_path / "rumour-1.json").write_text("{}")

    write(tmp_path)

    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(map(file_name, RECORDS))


@pytest.mark.parametrize("record", RECORDS, ids=file_name)
def test_a_schema_allows_unknown_fields_exactly_where_the_type_does(record: type[msgspec.Struct]) -> None:
    definition = json.loads(schema(record))["$defs"][record.__name__]

    assert definition.get("additionalProperties", True) is not record.__struct_config__.forbid_unknown_fields


@pytest.mark.parametrize("record", RECORDS, ids=file_name)
def test_every_record_is_frozen(record: type[msgspec.Struct]) -> None:
    assert record.__struct_config__.frozen
