"""Raw records in; answers of people, and dead letters for what is none, out."""

from dataclasses import dataclass

from bytewax import operators as op
from bytewax.dataflow import Stream, operator
from msgspec import Struct

from dataflows.observer import Observer
from dataflows.operators.decode import Records, letter_of
from models.contracts.answer import Answer
from models.contracts.errors import InputError
from models.contracts.event import DeadLetter
from models.contracts.wire import decode_answer


class Read(Struct, frozen=True):
    """What became of records."""

    answers: list[Answer]
    letters: list[DeadLetter]


@dataclass(frozen=True)
class ReadStreams:
    """Lists of answers, and of dead letters; no list is empty."""

    answers: Stream[list[Answer]]
    letters: Stream[list[DeadLetter]]


@operator
def read_answers(step_id: str, up: Stream[Records], observer: Observer) -> ReadStreams:
    """Part records into answers and dead letters."""

    def step(batch: Records) -> Read:
        observer.arrived(batch.source, len(batch.records), batch.received_at_ms)
        read = read_batch(batch)
        if read.letters:
            observer.buried(read.letters)
        return read

    parted = op.map("part", up, step)
    return ReadStreams(
        answers=op.filter_map("answers", parted, lambda read: read.answers or None),
        letters=op.filter_map("letters", parted, lambda read: read.letters or None),
    )


def read_batch(batch: Records) -> Read:
    """Return an answer or a dead letter for each record, each in the order of arrival."""
    read = Read([], [])
    for index, raw in enumerate(batch.records):
        try:
            read.answers.append(decode_answer(raw))
        except InputError as error:
            read.letters.append(letter_of(batch, index, "not-an-answer", str(error)))
    return read
