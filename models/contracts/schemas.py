"""JSON Schemas of the contracts: `python -m models.contracts.schemas docs/schemas` writes them."""

import inspect
import sys
from pathlib import Path
from typing import Any

import msgspec

from models.contracts.answer import Answer
from models.contracts.event import DeadLetter, Event
from models.contracts.incident import Incident
from models.contracts.opinion import Opinion
from models.contracts.policy import Policy
from models.contracts.release import Release
from models.contracts.task import Task
from models.contracts.verdict import Verdict

RECORDS: tuple[type[msgspec.Struct], ...] = (
    Event,
    DeadLetter,
    Task,
    Opinion,
    Verdict,
    Policy,
    Release,
    Answer,
    Incident,
)
DIALECT = "https://json-schema.org/draft/2020-12/schema"  # the one msgspec writes


def file_name(record: type[msgspec.Struct]) -> str:
    """Name the schema's file after the record's tag and version: `event/1` is in `event-1.json`."""
    tag = record.__struct_config__.tag or record.__name__.lower()
    return f"{str(tag).replace('/', '-')}.json"


def schema(record: type[msgspec.Struct]) -> bytes:
    """Return the schema of one record as indented JSON, the same bytes whenever the type is the same."""
    described: dict[str, Any] = {"$schema": DIALECT, **msgspec.json.schema(record)}
    for definition in described["$defs"].values():
        definition["description"] = inspect.cleandoc(definition["description"])  # msgspec keeps a docstring's margin
    return msgspec.json.format(msgspec.json.encode(described, order="sorted"), indent=2) + b"\n"


def write(folder: Path) -> None:
    """Write every schema into `folder` and remove those of records that are no more."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {folder / file_name(record): schema(record) for record in RECORDS}
    for path, content in wanted.items():
        path.write_bytes(content)
    for path in set(folder.glob("*.json")) - set(wanted):
        path.unlink()


if __name__ == "__main__":
    write(Path(sys.argv[1]))
