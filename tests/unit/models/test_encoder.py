"""An encoder's head in the task's order, whatever else is in the batch."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
from gguf import TokenType

from bench.random_models import write_encoder
from models.contracts.errors import UntrustedError
from models.contracts.release import Prompt
from models.llama import Encoder, Model
from models.opening import open_classifier
from tests.checks.classifier import LINES
from tests.fakes.tiny_models import ENCODER, RELEASE, TASK, tiny_encoder, vocabulary


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

    with pytest.raises(UntrustedError, match=r"answers \['spam', 'ham', 'eggs'\], task soc-triage wants \['benign'"):
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
