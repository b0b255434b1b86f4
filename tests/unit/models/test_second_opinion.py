"""A release that asks another for a second opinion: both read, both count, and only the pair that was measured."""

import shutil
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from models.contracts.errors import ConfigError, UnavailableError, UntrustedError
from models.contracts.release import Calibration, Prompt, Release, SecondOpinion
from models.encoder import EncoderClassifier
from models.llama import Model
from models.opening import classifier_of, open_classifier
from models.release_file import digest_of, read_release
from tests.checks.classifier import LINES
from tests.fakes.tiny_models import RELEASE, TASK, tiny_decoder, tiny_encoder, tiny_reader

WEIGHT = 0.7


def encoder_release(**changes: object) -> Release:
    return replace(RELEASE, number=1, prompt=Prompt(kind="encoder"), **changes)


def asking(file: Path, weight: float = WEIGHT, **changes: object) -> Release:
    """Return a release that asks the one in a file."""
    return encoder_release(
        name="asking",
        calibration=Calibration(temperature=1.5, bias=(0.1, 0.0, -0.2), second_weight=weight),
        second_opinion=SecondOpinion(release="second-1", sha256=digest_of(file)),
        **changes,
    )


@pytest.fixture
def second_file(tmp_path: Path) -> Path:
    calibrated = encoder_release(name="second", calibration=Calibration(temperature=3.0, bias=(5.0, 0.0, 0.0)))
    return tiny_encoder(tmp_path / "second.gguf", release=calibrated, seed=3)


def said(file: Path) -> np.ndarray:
    classifier = open_classifier(file, threads=2)
    found = np.array([opinion.probabilities for opinion in classifier.classify(LINES)])
    classifier.close()
    return found


def test_both_opinions_count_by_their_weights_as_the_networks_say_them(second_file: Path, tmp_path: Path) -> None:
    alone = tiny_encoder(tmp_path / "alone.gguf")
    uncalibrated = tiny_encoder(tmp_path / "uncalibrated.gguf", release=encoder_release(), seed=3)
    together = tiny_encoder(tmp_path / "asking.gguf", release=asking(second_file))

    scores = np.log(said(alone)) / 1.5 + np.array([0.1, 0.0, -0.2]) + WEIGHT * np.log(said(uncalibrated))
    wanted = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)

    assert said(together) == pytest.approx(wanted, abs=1e-3)


def test_a_second_opinion_without_weight_is_not_asked(second_file: Path, tmp_path: Path) -> None:
    file = tiny_encoder(tmp_path / "asking.gguf", release=asking(second_file, weight=0.0))
    second_file.unlink()

    assert len(said(file)) == len(LINES)


def test_fields_are_those_of_the_label_that_both_came_to(second_file: Path, tmp_path: Path) -> None:
    reader = tiny_reader(tmp_path / "reader.gguf")
    with Model(reader, vocabulary_only=True) as model:
        own = read_release(model)
    decides = SecondOpinion(release="second-1", sha256=digest_of(second_file))
    pair = replace(own, calibration=Calibration(second_weight=1000.0), second_opinion=decides)
    wanted = said(tiny_encoder(tmp_path / "uncalibrated.gguf", release=encoder_release(), seed=3)).argmax(axis=1)
    for at, label in enumerate(TASK.label_names):
        asked = replace(pair, task=replace(pair.task, fields_for=(label,)))
        with Model(reader) as model, closing(classifier_of(model, asked, threads=1)) as classifier:
            opinions = classifier.classify(LINES)

        assert [int(np.argmax(opinion.probabilities)) for opinion in opinions] == wanted.tolist()
        assert all(chosen == at for opinion, chosen in zip(opinions, wanted, strict=True) if opinion.fields)
        assert any(opinion.fields for opinion in opinions) or at not in wanted


def test_a_second_opinion_stands_beside_the_release_by_its_name_or_its_title(second_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    file = tiny_encoder(folder / "asking.gguf", release=asking(second_file))
    shutil.copy(second_file, folder / "second-1.gguf")

    assert len(said(file)) == len(LINES)


def test_another_file_than_the_one_that_was_measured_is_not_asked(second_file: Path, tmp_path: Path) -> None:
    release = asking(second_file)
    file = tiny_encoder(tmp_path / "asking.gguf", release=release)
    tiny_encoder(second_file, release=encoder_release(name="second"), seed=4)

    with pytest.raises(ConfigError, match=r"asking-1 asks second-1 for a second opinion, and no file of SHA-256 "):
        open_classifier(file)


def test_a_second_opinion_on_other_labels_is_refused(tmp_path: Path) -> None:
    fewer = replace(TASK, labels=TASK.labels[:2], default_label=TASK.label_names[0], fields_for=())
    second = tiny_encoder(
        tmp_path / "second.gguf", fewer.label_names, encoder_release(name="second", task=fewer), seed=3
    )
    file = tiny_encoder(tmp_path / "asking.gguf", release=asking(second))

    with pytest.raises(UntrustedError, match=r"second-1 has the labels .* refused it"):
        open_classifier(file)


def test_a_weight_of_nobodys_opinion_is_refused(second_file: Path, tmp_path: Path) -> None:
    file = tiny_encoder(tmp_path / "asking.gguf", release=replace(asking(second_file), second_opinion=None))

    with pytest.raises(UntrustedError, match=r"weight 0\.7 of a second opinion, and none to ask"):
        open_classifier(file)


def test_a_decoder_asks_nobody(second_file: Path, tmp_path: Path) -> None:
    release = replace(asking(second_file), prompt=RELEASE.prompt)
    file = tiny_decoder(tmp_path / "decoder.gguf", release)

    with pytest.raises(UntrustedError, match=r"a second opinion, with a prompt of kind `.*`; only encoders ask"):
        open_classifier(file)


def test_both_are_closed_together(second_file: Path, tmp_path: Path) -> None:
    classifier = open_classifier(tiny_encoder(tmp_path / "asking.gguf", release=asking(second_file)), threads=1)
    assert isinstance(classifier, EncoderClassifier)
    second = classifier._second
    classifier.close()

    assert second is not None
    for closed in (classifier, second):
        with pytest.raises(UnavailableError, match="closed"):
            closed.classify(LINES)
