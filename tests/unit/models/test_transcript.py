"""The field program: nothing can be written that the event or the task does not hold."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.contracts.task import Field
from models.fields import VALUE_MAX_BYTES, occurs, transcript_pieces
from models.transcript import FieldProgram, Transcript
from tests.fakes.tiny_models import TASK

WORDS = [b" root", b" from", b" 192", b".0.2", b" T11", b"10", b"90", b" -", b" Failed", b"/etc", b" ", b" /"]
PIECES = [bytes([byte]) for byte in range(256)] + [word for word in WORDS if len(word) > 1]
TOKEN_OF = {piece: token for token, piece in enumerate(PIECES)}


def encode(text: str) -> list[int]:
    """Longest piece first, as good a tokeniser as any."""
    rest, tokens = text.encode("utf-8", "replace"), []
    while rest:
        size = next(size for size in range(8, 0, -1) if rest[:size] in TOKEN_OF and len(rest) >= size)
        tokens.append(TOKEN_OF[rest[:size]])
        rest = rest[size:]
    return tokens


TOKEN_OF_ASCII = {piece: token for piece, token in TOKEN_OF.items() if piece.isascii() and piece > b"\x03"}


def encode_or_unknown(text: str) -> list[int]:
    """As a vocabulary that has one token for whatever it cannot spell."""
    return [token if PIECES[token] in TOKEN_OF_ASCII else 0 for token in encode(text)]


PROGRAM = FieldProgram(TASK, encode, TOKEN_OF, PIECES)
BODY = "sshd: Failed password for root from 192.0.2.7 port 22; cat /etc/passwd - müller"


def written(transcript: Transcript, choose: random.Random) -> list[int]:
    tokens = []
    while not transcript.done:
        tokens.append(choose.choice(transcript.allowed()))
        transcript.advance(tokens[-1])
    return tokens


def follow(body: str, fields: dict[str, list[str]]) -> Transcript:
    """Write what a model that was trained on the transcript's pieces writes."""
    transcript = PROGRAM.begin(body)
    for piece in transcript_pieces(TASK, "critical", fields)[1:]:
        for token in encode(piece):
            assert token in transcript.allowed()
            transcript.advance(token)
    return transcript


def test_what_a_model_is_trained_to_write_it_may_write() -> None:
    fields = {"source": ["192.0.2.7"], "technique": ["T1110"], "observable": ["root", "/etc/passwd", "müller"]}

    transcript = follow(BODY, fields)

    assert transcript.done
    assert transcript.values() == ({name: tuple(values) for name, values in fields.items()}, 0)


def test_a_field_that_the_event_does_not_answer_is_absent() -> None:
    transcript = follow(BODY, {"observable": ["root"]})

    assert transcript.done
    assert transcript.values() == ({"observable": ("root",)}, 0)


@pytest.mark.parametrize("value", ["192.0.2", "2.7", "admin", "passwor", "müll"])
def test_a_value_that_the_event_does_not_hold_cannot_be_written(value: str) -> None:
    with pytest.raises(AssertionError):
        follow(BODY, {"source": [value]})


@settings(deadline=None)
@given(st.text(max_size=60), st.integers(0, 1000))
def test_every_way_through_ends_and_every_value_is_grounded(body: str, seed: int) -> None:
    transcript = PROGRAM.begin(body)
    written(transcript, random.Random(seed))
    fields, ungrounded = transcript.values()

    assert ungrounded == 0
    for name, values in fields.items():
        assert len(values) <= (3 if name == "observable" else 1)
        for value in values:
            assert len(value.encode()) <= VALUE_MAX_BYTES
            assert value in ("T1110", "T1190") if name == "technique" else occurs(value, body)


@settings(deadline=None, max_examples=40)
@given(st.text(alphabet="ab1. -/;\n", max_size=40), st.integers(0, 1000))
def test_a_guess_is_always_allowed_and_a_copy_goes_its_own_way(body: str, seed: int) -> None:
    transcript, choose = PROGRAM.begin(body), random.Random(seed)
    while not transcript.done:
        guess = transcript.guess()
        assert guess is None or guess in transcript.allowed()
        before = list(transcript.allowed())
        other = transcript.copy()
        written(other, random.Random(seed))
        assert list(transcript.allowed()) == before
        transcript.advance(choose.choice(transcript.allowed()))


def test_a_value_that_has_begun_is_guessed_to_its_end() -> None:
    transcript = PROGRAM.begin(BODY)
    for token in encode("\nsource:") + encode(" 192"):
        transcript.advance(token)
    guessed = []
    while (token := transcript.guess()) is not None and len(guessed) < 14:
        guessed.append(token)
        transcript.advance(token)

    assert b"".join(PIECES[token] for token in guessed).decode() == ".0.2.7\ntechnique:"


def test_a_precedent_is_guessed_to_the_end_of_the_transcript_and_forgotten_where_the_model_differs() -> None:
    fields = {"source": ("192.0.2.7",), "technique": ("T1110",), "observable": ("root", "/etc/passwd")}
    transcript = PROGRAM.begin(BODY, fields)
    guessed = transcript.copy()
    while not guessed.done:
        token = guessed.guess()
        assert token is not None
        guessed.advance(token)

    assert guessed.values() == (fields, 0)
    for token in encode("\nsource: root\ntechnique: -\nobservable:"):
        transcript.advance(token)
    assert transcript.guess() == encode(" root")[0]


@settings(deadline=None, max_examples=60)
@given(st.text(alphabet="ab1. -/;", max_size=40), st.text(alphabet="ab1. -/;", max_size=8), st.integers(0, 1000))
def test_no_precedent_leads_to_a_token_that_is_not_allowed(body: str, value: str, seed: int) -> None:
    wrong = {"source": (value,), "technique": (value, "T1110"), "observable": (value,) * 5}
    transcript, choose = PROGRAM.begin(body, wrong), random.Random(seed)
    while not transcript.done:
        guess = transcript.guess()
        assert guess is None or guess in transcript.allowed()
        transcript.advance(choose.choice([guess or transcript.allowed()[0], choose.choice(transcript.allowed())]))

    assert transcript.values()[1] == 0


def test_how_a_word_that_has_begun_goes_on_is_no_question() -> None:
    transcript = PROGRAM.begin("login of müller from müller")
    for token in encode("\nsource:") + encode(" m"):
        transcript.advance(token)
    forced = []
    while len(transcript.allowed()) == 1:
        forced += transcript.allowed()
        transcript.advance(forced[-1])

    assert b"".join(PIECES[token] for token in forced).decode() == "üller"


def test_a_value_is_never_longer_than_the_limit_even_where_the_event_is() -> None:
    transcript = PROGRAM.begin("x" * 5000 + " " + "y " * 500)
    written(transcript, random.Random(1))

    assert all(len(value) <= VALUE_MAX_BYTES for values in transcript.values()[0].values() for value in values)


def test_a_field_of_one_value_does_not_go_on() -> None:
    transcript = PROGRAM.begin("root")
    for token in encode("\nsource:") + encode(" root"):
        transcript.advance(token)

    assert transcript.allowed() == [TOKEN_OF[b"\n"]]


@settings(deadline=None)
@given(st.text(alphabet="ab \x03é\u2603;-", max_size=30), st.integers(0, 1000))
def test_a_vocabulary_without_a_token_for_every_byte_writes_to_the_end_and_drops_what_it_cannot(
    body: str, seed: int
) -> None:
    program = FieldProgram(TASK, encode_or_unknown, TOKEN_OF_ASCII, PIECES)
    transcript, choose = program.begin(body), random.Random(seed)
    for _ in range(1000):
        if transcript.done:
            break
        guess = transcript.guess()
        assert guess is None or guess in transcript.allowed()
        transcript.advance(choose.choice(transcript.allowed()))
    fields, _ = transcript.values()

    assert transcript.done
    assert all(occurs(value, body) for name in ("source", "observable") for value in fields.get(name, ()))


def test_a_value_that_cannot_be_written_to_its_end_is_counted() -> None:
    transcript = FieldProgram(TASK, encode_or_unknown, TOKEN_OF_ASCII, PIECES).begin("ab\u2603")
    for token in encode("\nsource: ab"):
        transcript.advance(token)

    assert transcript.allowed() == [TOKEN_OF[b"\n"]]
    for token in encode("\ntechnique: -\nobservable: -\n"):
        transcript.advance(token)
    assert transcript.done
    assert transcript.values() == ({}, 1)


def test_a_task_without_fields_is_done_at_once() -> None:
    assert FieldProgram(TASK_WITHOUT_FIELDS, encode, TOKEN_OF, PIECES).begin("x").done


TASK_WITHOUT_FIELDS = type(TASK)(
    name="plain", instruction="", labels=TASK.labels, default_label="benign", fields=tuple[Field, ...]()
)
