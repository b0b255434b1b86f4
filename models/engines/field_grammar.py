"""The fields of a task as a grammar for engines that write under one, and the values that they wrote. Pure.

The form is that of `models/fields.py`. The grammar is in GBNF, which llama.cpp and vLLM's xgrammar both read. It knows
the choices but not the event, so that one grammar does for all events: a copied value is checked afterwards.
"""

import json

from models.contracts.task import Field, Task
from models.decoder_task import Fields
from models.fields import ABSENT, END, SEPARATOR, VALUE_MAX_BYTES, field_literal, occurs


def grammar_of(task: Task) -> str:
    """Return the grammar of all that is written behind a label."""
    lines = [f"{json.dumps(field_literal(field))} field{number}" for number, field in enumerate(task.fields)]
    rules = [f"root ::= {' '.join(lines)} {json.dumps(END)}"]
    for number, field in enumerate(task.fields):
        absent = json.dumps(f" {ABSENT}")
        more = f" ({json.dumps(SEPARATOR)} value{number}){{0,{field.max_values - 1}}}" if field.max_values > 1 else ""
        rules += [f"field{number} ::= {absent} | value{number}{more}", f"value{number} ::= {_value(field)}"]
    return "\n".join(rules)


def values_of(task: Task, written: str, body: str) -> Fields:
    """Return the values that stand in the event, or are choices, by field, and how many others there were.

    What was written may end anywhere; a value that may not have been finished is one of the others.
    """
    found: dict[str, tuple[str, ...]] = {}
    dropped = 0
    lines = written.removeprefix("\n").split("\n")
    *whole, last = lines
    for field in task.fields:
        lead = field_literal(field).removeprefix("\n")
        texts = [line.removeprefix(lead).split(SEPARATOR) for line in whole if line.startswith(lead)][:1]
        if not texts and last.startswith(lead):
            *values, _ = last.removeprefix(lead).split(SEPARATOR)
            texts = [values]
            dropped += 1
        wanted = [
            value for value in dict.fromkeys(text.strip() for values in texts for text in values) if value != ABSENT
        ]
        kept = tuple(value for value in wanted[: field.max_values] if _holds(value, field, body))
        dropped += len(wanted) - len(kept)
        if kept:
            found[field.name] = kept
    return found, dropped


def _value(field: Field) -> str:
    if field.choices:
        return " | ".join(json.dumps(f" {choice}", ensure_ascii=False) for choice in field.choices)
    # Not longer than a value may be, nor padded in front.
    return f'" " [^;\\r\\n\\t ] [^;\\r\\n]{{0,{VALUE_MAX_BYTES - 1}}}'


def _holds(value: str, field: Field, body: str) -> bool:
    return value in field.choices if field.kind == "choice" else occurs(value, body)
