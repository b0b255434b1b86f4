"""What a model writes after a label: one line per field, and the values it may write there. Pure.

After the label the transcript goes on, one line per field of the task, in order:

    critical
    source: 10.0.0.1
    target: -
    technique: T1190
    observable: root; /etc/passwd

A value follows a space; `;` parts several; `-` stands for none; the line feed that ends the last field ends the
transcript. Literals and values are tokenised apart, because their joint tokenisation differs: a model that is trained
on `transcript_pieces` meets, piece by piece, what a decoder forces (`models/transcript.py`).
"""

import re
from collections.abc import Mapping, Sequence

from models.contracts.errors import InputError
from models.contracts.task import Field, Task

ABSENT = "-"
SEPARATOR = ";"
END = "\n"
VALUE_MAX_BYTES = 128

# A dot or hyphen inside a word belongs to it: `10.0.0` is no value of `10.0.0.1`, nor `web` of `web-01`.
_WORD = re.compile(rb"[0-9A-Za-z_\x80-\xff]+(?:[.-]+[0-9A-Za-z_\x80-\xff]+)*")


def transcript_pieces(task: Task, label: str, fields: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the answer to an event as the pieces that are tokenised apart and then joined.

    A label that the task reads no fields for is the label and the end. A field that is missing, or has no value, is
    absent.

    Raises:
        InputError: the label or a field is not the task's, or a value cannot be written in this form.
    """
    if label not in task.label_names:
        raise InputError(f"label `{label}`: task {task.name} has {list(task.label_names)}")
    strangers = sorted(set(fields) - {field.name for field in task.fields})
    if strangers:
        raise InputError(f"fields {strangers}: task {task.name} has {[field.name for field in task.fields]}")
    pieces = [f" {label}"]
    if label in task.fields_for:
        for field in task.fields:
            pieces.append(field_literal(field))
            values = fields.get(field.name) or (ABSENT,)
            _check(field, values)
            for number, value in enumerate(values):
                pieces += [SEPARATOR, f" {value}"] if number else [f" {value}"]
    return [*pieces, END]


def field_literal(field: Field) -> str:
    """Return what is forced before the values of a field; its line feed ends the field before."""
    return f"\n{field.name}:"


def occurs(value: str, text: str) -> bool:
    """Tell whether `value` stands in `text` as whole words: what a `copied` value must do."""
    wanted, body = value.encode("utf-8", "replace"), text.encode("utf-8", "replace")
    inside = inside_words(body)
    start = body.find(wanted) if wanted else -1
    while start >= 0:
        if not inside[start] and not inside[start + len(wanted)]:
            return True
        start = body.find(wanted, start + 1)
    return False


def inside_words(body: bytes) -> bytearray:
    """Return, for every position between two bytes of `body`, whether a value would cut a word there."""
    inside = bytearray(len(body) + 1)
    for word in _WORD.finditer(body):
        inside[word.start() + 1 : word.end()] = b"\x01" * (len(word[0]) - 1)
    return inside


def _check(field: Field, values: Sequence[str]) -> None:
    where = f"field `{field.name}`"
    if len(values) > field.max_values:
        raise InputError(f"{where}: {len(values)} values, at most {field.max_values} wanted")
    for value in values:
        if value == ABSENT and len(values) == 1:
            continue
        if field.kind == "choice" and value not in field.choices:
            raise InputError(f"{where}: `{value}` is none of {list(field.choices)}")
        if not value.strip() or value != value.strip() or value == ABSENT or re.search(r"[;\r\n]", value):
            raise InputError(
                f"{where}: {value!r} cannot be written: empty, padded, `-`, or with `;` or a line end in it"
            )
        if len(value.encode()) > VALUE_MAX_BYTES:
            raise InputError(f"{where}: a value of {len(value.encode())} bytes, at most {VALUE_MAX_BYTES} wanted")
