"""A model is tried where it can do no harm."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from models.contracts.errors import ConfigError, UntrustedError
from models.contracts.release import Golden
from models.opening import open_classifier
from models.trial import try_model
from tests.fakes.tiny_models import RELEASE, tiny_decoder

TEXT = "sshd: Failed password for root from 192.0.2.7"


def with_golden(path: Path, label: str) -> Path:
    golden = (Golden(text=TEXT, label=label, confidence=0.5),)
    return tiny_decoder(path, msgspec.structs.replace(RELEASE, golden=golden))


@pytest.fixture(scope="module")
def answer(decoder_file: Path) -> str:
    """The label that the tiny model gives."""
    classifier = open_classifier(decoder_file, threads=1)
    (opinion,) = classifier.classify([TEXT])
    classifier.close()
    return RELEASE.task.label_names[opinion.probabilities.index(max(opinion.probabilities))]


def test_a_model_that_answers_as_promised_passes(tmp_path: Path, answer: str) -> None:
    report = try_model(with_golden(tmp_path / "good.gguf", answer))

    assert (report.release, len(report.answers), report.wrong) == ("tiny-3", 1, ())


def test_a_model_that_answers_otherwise_is_refused_with_both_labels(tmp_path: Path, answer: str) -> None:
    other = next(name for name in RELEASE.task.label_names if name != answer)
    path = with_golden(tmp_path / "bad.gguf", other)

    with pytest.raises(UntrustedError, match=f"1 of 1 golden events.*`{answer}` instead of `{other}`"):
        try_model(path)


def test_a_wrong_digest_and_a_missing_file_keep_their_own_words(decoder_file: Path) -> None:
    with pytest.raises(UntrustedError, match="the configuration wants"):
        try_model(decoder_file, sha256="0" * 64)
    with pytest.raises(ConfigError, match="no such file"):
        try_model("no-such-model")


def test_a_crash_is_refused_with_the_signal_and_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    crash = tmp_path / "crash"
    crash.write_text(f"#!/bin/sh\nkill -{signal.SIGILL.value} $$\n")
    crash.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(crash))

    with pytest.raises(UntrustedError, match=r"killed by SIGILL.*AMX.*\./just setup"):
        try_model(tmp_path / "any.gguf")


def test_a_trial_that_hangs_is_stopped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hang = tmp_path / "hang"
    hang.write_text("#!/bin/sh\nexec sleep 600\n")
    hang.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(hang))

    with pytest.raises(UntrustedError, match=r"more than 0\.3 s"):
        try_model(tmp_path / "any.gguf", timeout_s=0.3)


def test_a_relative_path_is_tried_from_any_folder(decoder_file: Path) -> None:
    code = f"from models.trial import try_model; print(try_model({decoder_file.name!r}).release)"
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=decoder_file.parent,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stdout.endswith("tiny-3\n"), done.stderr
