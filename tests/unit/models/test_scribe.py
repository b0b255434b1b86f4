"""Transcripts side by side, whatever room there is."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from models.lane import Lane
from models.llama import Model
from models.scribe import Job, Scribe
from models.transcript import FieldProgram, Transcript
from models.window import order_of
from tests.checks.greedy import CLOSE, greedy_fields
from tests.fakes.tiny_models import RELEASE

EVENTS = [f"sshd: Failed password for user{number} from 192.0.2.{number}" for number in range(12)]
Fields = tuple[dict[str, tuple[str, ...]], int]


@pytest.fixture(scope="module")
def model(decoder_file: Path) -> Iterator[Model]:
    with Model(decoder_file) as opened:
        yield opened


def written(model: Model, room: int | None) -> list[Fields]:
    """Read all events in one window, and write behind those of its last stretch."""
    vocabulary = model.vocabulary
    program = FieldProgram(RELEASE.task, vocabulary.encode, vocabulary.token_of_piece, vocabulary.pieces)
    texts = [np.array(vocabulary.encode(event), np.int32) for event in EVENTS]
    order = order_of(texts)
    lane = Lane(model, vocabulary.encode(RELEASE.prompt.before), 1024)
    found: list[Fields] = []
    for stretch in lane.read([texts[i] for i in order]):
        begun = [program.begin(EVENTS[order[stretch.first + place]]) for place in range(len(stretch.logits))]
        jobs = [
            Job(stretch.sequence + place, stretch.lengths[place], tuple(vocabulary.encode(" critical")), transcript)
            for place, transcript in enumerate(begun)
        ]
        found += [t.values() for t in stretch.scribe.write(jobs, stretch.room if room is None else room)]
    return found


def test_transcripts_that_lack_room_side_by_side_are_written_one_by_one_to_the_same_words(model: Model) -> None:
    vocabulary, little = model.vocabulary, written(model, 150)
    in_order = [EVENTS[i] for i in order_of([np.array(vocabulary.encode(event), np.int32) for event in EVENTS])]
    clear = 0
    for event, values in zip(in_order, little, strict=True):
        pieces = (RELEASE.prompt.before, event, " critical")
        greedy, closest = greedy_fields(model, [token for piece in pieces for token in vocabulary.encode(piece)], event)
        if closest > CLOSE:
            clear += 1
            assert values == greedy

    assert clear >= len(EVENTS) // 4


def test_a_transcript_that_does_not_fit_alone_ends_early_and_holds_nobody_up(model: Model) -> None:
    assert len(written(model, 12)) == len(EVENTS)
    assert all(len(fields) < len(RELEASE.task.fields) for fields, _ in written(model, 12))


def test_nothing_to_write_is_nothing_written(model: Model) -> None:
    lane = Lane(model, [1], 256)
    (stretch,) = lane.read([np.array([5], np.int32)])

    assert Scribe.write(stretch.scribe, [], stretch.room) == list[Transcript]()
