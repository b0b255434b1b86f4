"""An encoder's head in the task's order, whatever else is in the batch, and the fields it reads."""

from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import pytest
from gguf import TokenType

from bench.random_models import write_encoder
from models.contracts.errors import UntrustedError
from models.contracts.release import Prompt, Release, Roles
from models.encoder import EncoderClassifier
from models.fields import occurs
from models.llama import Encoder, Model
from models.opening import open_classifier
from models.roles import role_names
from models.wording import words_of
from tests.checks.classifier import LINES
from tests.fakes.tiny_models import ENCODER, RELEASE, TASK, tiny_decoder, tiny_encoder, tiny_reader, vocabulary

COPIED = role_names(TASK.fields)
ALWAYS_FIELDS = msgspec.structs.replace(TASK, fields_for=TASK.label_names)


@pytest.fixture(scope="module")
def reader_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_reader(tmp_path_factory.mktemp("reader") / "reader.gguf")


def reader_of(layer: np.ndarray | None, wording: str = "words-1", names: tuple[str, ...] = COPIED) -> Release:
    """Return a release that reads fields off events of every label with a layer, a row per name."""
    return msgspec.structs.replace(
        RELEASE,
        task=ALWAYS_FIELDS,
        prompt=Prompt(kind="encoder", wording=wording),
        roles=None if layer is None else Roles(names=names, weights=layer.astype("<f4").tobytes()),
    )


def test_probabilities_are_the_softmax_of_the_head_in_the_task_s_order(encoder_file: Path) -> None:
    classifier = open_classifier(encoder_file, threads=2)
    opinions = classifier.classify(LINES)
    classifier.close()
    with Model(encoder_file) as model:
        encoder = Encoder(model, rows=512, sequences=1)
        for line, opinion in zip(LINES, opinions, strict=True):
            (logits,) = encoder.encode([model.vocabulary.encode_whole(line)])
            softmax = dict(zip(model.labels, np.exp(logits) / np.exp(logits).sum(), strict=True))

            assert opinion.probabilities == pytest.approx([softmax[name] for name in TASK.label_names], abs=0.01)


def test_a_text_longer_than_the_positions_keeps_the_mark_at_its_end(encoder_file: Path) -> None:
    classifier = open_classifier(encoder_file, threads=1)
    exact, longer = "root " * 510, "root " * 511
    opinions = classifier.classify([exact, longer, longer + "x"])
    classifier.close()

    assert [opinion.truncated for opinion in opinions] == [False, True, True]
    assert opinions[1].probabilities == opinions[2].probabilities


def test_there_is_no_mass_to_lose_and_no_field_to_read(encoder_file: Path) -> None:
    classifier = open_classifier(encoder_file, threads=1)

    assert {(opinion.label_mass, *opinion.fields) for opinion in classifier.classify(LINES)} == {(1.0,)}
    classifier.close()


def test_a_head_with_other_labels_than_the_task_s_is_refused_with_both(tmp_path: Path) -> None:
    path = tiny_encoder(tmp_path / "other.gguf", labels=("spam", "ham", "eggs"))

    with pytest.raises(UntrustedError, match="answers spam, ham, eggs, task soc-triage wants benign, suspicious,"):
        open_classifier(path)


@pytest.mark.parametrize("mark", ["[SEP]", "[CLS]", "[MASK]", "[PAD]"])
def test_a_mark_in_a_text_reads_as_the_letters_it_is_written_with(encoder_file: Path, mark: str) -> None:
    with Model(encoder_file, vocabulary_only=True) as model:
        first, *inner, last = model.vocabulary.encode_whole(mark)

        assert b"".join(model.vocabulary.pieces[token] for token in inner).replace(b" ", b"") == mark.lower().encode()
        assert (model.vocabulary.pieces[first], model.vocabulary.pieces[last]) == (b"", b"")


def test_what_the_vocabulary_cannot_spell_is_read_as_unknown_and_not_left_out(encoder_file: Path) -> None:
    with Model(encoder_file, vocabulary_only=True) as model:
        assert len(model.vocabulary.encode_whole("root \u2603 failed")) == len(
            model.vocabulary.encode_whole("root x failed")
        )
    classifier = open_classifier(encoder_file, threads=1)
    with_it, without = classifier.classify(["root \u2603 failed", "root failed"])
    classifier.close()

    assert with_it.probabilities != without.probabilities


def test_an_encoder_whose_vocabulary_marks_no_ends_is_refused(tmp_path: Path) -> None:
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    plain = vocabulary()
    unmarked = msgspec.structs.replace(
        plain, tokens=[*plain.tokens, *marks], types=[*plain.types, *[int(TokenType.CONTROL)] * len(marks)]
    )
    release = msgspec.structs.replace(RELEASE, prompt=Prompt(kind="encoder"))
    write_encoder(tmp_path / "unmarked.gguf", ENCODER, unmarked, TASK.label_names, release)

    with pytest.raises(UntrustedError, match=r"unmarked\.gguf: its vocabulary does not mark both ends"):
        open_classifier(tmp_path / "unmarked.gguf")


@pytest.mark.parametrize("kind", ["chat", "plain"])
def test_a_release_that_would_ask_an_encoder_as_a_decoder_is_refused(
    tmp_path: Path, kind: Literal["chat", "plain"]
) -> None:
    path = tiny_encoder(tmp_path / "odd.gguf", release=msgspec.structs.replace(RELEASE, prompt=Prompt(kind=kind)))

    with pytest.raises(UntrustedError, match=rf"odd\.gguf.*a prompt of kind `{kind}`, and is an encoder"):
        open_classifier(path)


def test_a_release_that_would_ask_a_decoder_as_an_encoder_is_refused(tmp_path: Path) -> None:
    path = tiny_decoder(tmp_path / "odd.gguf", msgspec.structs.replace(RELEASE, prompt=Prompt(kind="encoder")))

    with pytest.raises(UntrustedError, match=r"odd\.gguf.*a prompt of kind `encoder`, and is no encoder"):
        open_classifier(path)


def test_none_of_the_labels_takes_from_their_mass_and_the_likeliest_choice_is_the_field_s(reader_file: Path) -> None:
    classifier = open_classifier(reader_file, threads=2)
    opinions = classifier.classify(LINES)
    classifier.close()
    with Model(reader_file) as model:
        encoder = Encoder(model, rows=512, sequences=1)
        for line, opinion in zip(LINES, opinions, strict=True):
            (logits,) = encoder.encode([model.vocabulary.encode_whole(words_of(line, "words-1").text)])
            weight = dict(zip(model.labels, np.exp(logits.astype(np.float64)), strict=True))
            labels = np.array([weight[name] for name in TASK.label_names])
            choices = {name: weight[f"technique={name}"] for name in ("-", "T1110", "T1190")}
            chosen = max(choices, key=lambda name: choices[name])

            assert opinion.probabilities == pytest.approx(labels / labels.sum(), abs=0.01)
            assert opinion.label_mass == pytest.approx(labels.sum() / (labels.sum() + weight["-"]), abs=0.01)
            assert opinion.label_mass < 1
            assert opinion.fields.get("technique", ("-",)) == (chosen,)


def test_fields_are_chosen_and_copied_from_the_text_in_the_task_s_order(reader_file: Path) -> None:
    classifier = open_classifier(reader_file, threads=1)
    opinions = dict(zip(LINES, classifier.classify(LINES), strict=True))
    classifier.close()
    order = [field.name for field in TASK.fields]

    assert {name for opinion in opinions.values() for name in opinion.fields} == set(order)
    for line, opinion in opinions.items():
        assert list(opinion.fields) == [name for name in order if name in opinion.fields]
        for name in ("source", "observable"):
            assert all(occurs(value, line) for value in opinion.fields.get(name, ()))


def test_an_event_of_a_label_without_fields_has_none(tmp_path: Path, reader_file: Path) -> None:
    with Model(reader_file) as model:
        outputs = model.labels
    nobody = msgspec.structs.replace(reader_of(None), task=msgspec.structs.replace(TASK, fields_for=()))
    silent = open_classifier(tiny_encoder(tmp_path / "silent.gguf", outputs, nobody), threads=1)
    everybody = open_classifier(tiny_encoder(tmp_path / "heard.gguf", outputs, reader_of(None)), threads=1)
    said, kept = everybody.classify(LINES), silent.classify(LINES)
    silent.close()
    everybody.close()

    assert any(opinion.fields for opinion in said)
    assert not any(opinion.fields for opinion in kept)
    assert [opinion.probabilities for opinion in said] == [opinion.probabilities for opinion in kept]


@pytest.mark.parametrize(
    ("wording", "text", "stands_for_it"),
    [
        ("words-1", "  login Failed for root from private ip port 22", "private ip"),
        ("", "2024-05-06T07:08:09Z loginFailed for root from 10.0.0.1 port 22", "10.0.0.1"),
    ],
)
def test_a_copied_value_is_read_off_the_tokens_that_stand_for_it(
    tmp_path: Path, wording: str, text: str, stands_for_it: str
) -> None:
    event = "2024-05-06T07:08:09Z loginFailed for root from 10.0.0.1 port 22"
    before, behind = text.split(stands_for_it)
    parts = [*before.split(), stands_for_it, *behind.split()]
    with Model(tiny_encoder(tmp_path / "plain.gguf", release=reader_of(None, wording))) as model:
        tokens = model.vocabulary.encode_whole(text)
        vectors = Encoder(model, rows=512, sequences=1, pooled=False).encode([tokens])
        lengths = [len(model.vocabulary.encode_whole(part)) - 2 for part in parts]
    assert sum(lengths) == len(tokens) - 2
    ends = 1 + np.cumsum(lengths)
    means = np.array([vectors[end - length : end].mean(axis=0) for end, length in zip(ends, lengths, strict=True)])
    # A direction in which the part's vector is 1, and that of every other part is 0.
    direction, *_ = np.linalg.lstsq(means, np.array([part == stands_for_it for part in parts], float), rcond=None)
    layer = np.zeros((len(COPIED), ENCODER.width + 1))
    layer[COPIED.index("source")] = [*1000 * direction, -990]  # one token too few is too little
    layer[COPIED.index("observable"), -1] = -99

    path = tiny_encoder(tmp_path / "reader.gguf", release=reader_of(layer, wording))
    classifier = open_classifier(path, threads=1)
    (opinion,) = classifier.classify([event])
    classifier.close()

    assert opinion.fields == {"source": ("10.0.0.1",)}


def test_a_text_that_goes_on_behind_the_words_that_are_read_is_truncated(reader_file: Path) -> None:
    classifier = open_classifier(reader_file, threads=1)
    texts = ["root", "root" + " " * 16_000, "root" + " " * 17_000 + "failed", '"a":null,' * 2_000 + '"b":"failed"']
    truncated = [opinion.truncated for opinion in classifier.classify(texts)]
    classifier.close()

    assert truncated == [False, False, True, True]


def test_words_that_nobody_writes_twice_are_not_remembered(reader_file: Path) -> None:
    with Model(reader_file) as model:
        classifier = EncoderClassifier(model, reader_of(np.zeros((len(COPIED), ENCODER.width + 1))), threads=1)
        classifier.classify(["root " + "a" * length for length in range(65, 85)])

        assert classifier._tokens_of_word.cache_info().currsize == 1  # `root`


@pytest.mark.parametrize("width", [ENCODER.width - 1, ENCODER.width + 1])
def test_a_layer_for_vectors_of_another_width_is_refused_with_both(tmp_path: Path, width: int) -> None:
    path = tiny_encoder(tmp_path / "other.gguf", release=reader_of(np.zeros((len(COPIED), width + 1))))

    with pytest.raises(UntrustedError, match=f"reads vectors of {width} numbers, the model's have {ENCODER.width};"):
        open_classifier(path)


@pytest.mark.parametrize(
    "names",
    [(), ("source",), ("source", "-"), ("-", "technique"), ("-", "source", "source"), ("-", "stranger")],
    ids=["nothing", "no none", "none last", "a choice", "a field twice", "a stranger"],
)
def test_a_layer_for_other_names_than_the_copied_fields_is_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    layer = np.zeros((len(names), ENCODER.width + 1))
    path = tiny_encoder(tmp_path / "other.gguf", release=reader_of(layer, names=names))

    with pytest.raises(UntrustedError, match=r"`-` and some of \['source', 'observable'\] wanted; refused it"):
        open_classifier(path)


@pytest.mark.parametrize("numbers", [0, 1, 3 * (ENCODER.width + 1) - 1])
def test_a_layer_that_is_no_row_per_name_is_refused(tmp_path: Path, numbers: int) -> None:
    path = tiny_encoder(tmp_path / "other.gguf", release=reader_of(np.zeros(numbers)))

    with pytest.raises(UntrustedError, match=f"of {4 * numbers} bytes for 3 names"):
        open_classifier(path)


def test_what_was_read_before_is_not_read_again_and_says_the_same(
    reader_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    encode = Encoder.encode

    def counted(self: Encoder, texts: list[list[int]]) -> np.ndarray:
        read.append(len(texts))
        return encode(self, texts)

    monkeypatch.setattr(Encoder, "encode", counted)
    layer = np.zeros((len(COPIED), ENCODER.width + 1))
    layer[COPIED.index("source"), -1] = 9  # of words that are equally likely the first
    first = "192.0.2.7 tried a password for root from port 51122"
    other = first.replace("192.0.2.7", "198.51.100.77")  # `words-1` has `public ip` for both
    with Model(reader_file) as model:
        remembers = EncoderClassifier(model, reader_of(layer), threads=1, remembered=64)
        asks = EncoderClassifier(model, reader_of(layer), threads=1, remembered=0)
        (of_first,) = remembers.classify([first])
        reads = len(read)
        (said,) = remembers.classify([other])
        assert len(read) == reads
        (wanted,) = asks.classify([other])
        assert len(read) == reads + 2

    assert said == wanted
    assert "192.0.2.7" in str(of_first.fields)
    assert "198.51.100.77" in str(said.fields)


def test_no_more_is_remembered_than_was_asked_for(encoder_file: Path) -> None:
    with Model(encoder_file) as model:
        classifier = EncoderClassifier(model, RELEASE, threads=1, remembered=2)
        classifier.classify([f"event {word}" for word in ("a", "b", "c", "d")])

        assert len(classifier._said) == 2


def test_what_is_remembered_has_few_bytes_however_long_the_texts_are(
    reader_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.encoder._REMEMBERED_BYTES", 20_000)
    layer = np.zeros((len(COPIED), ENCODER.width + 1))
    layer[COPIED.index("source"), -1] = 9
    with Model(reader_file) as model:
        classifier = EncoderClassifier(model, reader_of(layer), threads=1)
        for number in range(40):
            classifier.classify([f"{number} " + "tried a password for root " * 20])

    assert 5 < len(classifier._said) < 40
    assert 0 < len(classifier._scored) < 40
    for kept in (classifier._said, classifier._scored):
        sizes = [kept._size_of(key) + numbers.nbytes for key, numbers in kept.items()]
        assert kept._bytes == sum(sizes) <= 20_000
