"""What the seal of a model file is looked for by, and that nothing else is taken for it."""

import hashlib
from pathlib import Path

import msgspec
import pytest

from models.contracts.errors import ConfigError, UntrustedError
from models.contracts.release import Golden, Prompt
from models.contracts.task import Label
from models.llama import Model
from models.release_file import read_release
from models.seal import SEAL_KEY, UNSEALED, check_seal, seal
from tests.fakes.tiny_models import RELEASE, TASK, tiny_encoder

# As a GGUF writes a pair of a key and a string: the key's length and the key, what kind of value, its length.
MARK = len(SEAL_KEY).to_bytes(8, "little") + SEAL_KEY.encode() + (8).to_bytes(4, "little") + (64).to_bytes(8, "little")
PLACE = MARK + UNSEALED.encode()
MEBIBYTE = 1 << 20


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def sealed(path: Path, content: bytes) -> bytes:
    """Seal a file of this content, and return what it holds then."""
    seal(written(path, content))
    return path.read_bytes()


def test_a_seal_is_the_digest_of_the_file_with_zeros_in_its_place(tmp_path: Path) -> None:
    content = b"before" + PLACE + b"behind"
    digest = hashlib.sha256(content).hexdigest()

    assert sealed(tmp_path / "model", content) == b"before" + MARK + digest.encode() + b"behind"
    check_seal(tmp_path / "model")
    assert seal(tmp_path / "model") == digest  # once more changes nothing


@pytest.mark.parametrize("before", [0, 1, MEBIBYTE - 100, MEBIBYTE - 30, MEBIBYTE - 1, MEBIBYTE, MEBIBYTE + 1])
def test_a_seal_is_found_wherever_a_read_of_the_file_ends(tmp_path: Path, before: int) -> None:
    content = bytes(before) + PLACE + bytes(2 * MEBIBYTE - before)

    assert sealed(tmp_path / "model", content) == content.replace(UNSEALED.encode(), seal(tmp_path / "model").encode())
    check_seal(tmp_path / "model")
    written(tmp_path / "model", (tmp_path / "model").read_bytes()[:-1] + b"x")
    with pytest.raises(UntrustedError, match="changed or damaged"):
        check_seal(tmp_path / "model")


def test_a_text_that_looks_like_the_seal_is_a_text(tmp_path: Path) -> None:
    lookalike = PLACE.decode("latin-1") + SEAL_KEY + UNSEALED
    release = msgspec.structs.replace(
        RELEASE,
        task=msgspec.structs.replace(TASK, labels=(*TASK.labels, Label("lookalike", lookalike))),
        prompt=Prompt(kind="encoder", before=lookalike),
        golden=(Golden(text=lookalike, label="benign", confidence=0.5),),
        provenance={SEAL_KEY: UNSEALED, lookalike: lookalike},
    )
    # Its name is in the metadata, too, and before the seal.
    path = tiny_encoder(tmp_path / f"{SEAL_KEY}{UNSEALED}.gguf", release.task.label_names, release)

    assert path.read_bytes().count(MARK) == 1
    with Model(path, vocabulary_only=True) as model:
        digest = model.metadata(SEAL_KEY)
        assert read_release(model) == release
    assert digest is not None
    assert digest == hashlib.sha256(path.read_bytes().replace(digest.encode(), UNSEALED.encode())).hexdigest()


def test_digits_without_the_mark_before_them_are_no_seal(tmp_path: Path) -> None:
    for content in (b"", UNSEALED.encode(), SEAL_KEY.encode() + UNSEALED.encode(), MARK[:-1], MARK[8:] + PLACE[-64:]):
        path = written(tmp_path / "model", content)
        with pytest.raises(UntrustedError, match=rf"holds a release and no seal \(`{SEAL_KEY}`\)"):
            check_seal(path)
        with pytest.raises(ValueError, match=f"no `{SEAL_KEY}` in its metadata"):
            seal(path)
        assert path.read_bytes() == content


def test_of_two_marks_the_first_is_the_seal_and_the_digits_of_the_second_count_like_any_byte(tmp_path: Path) -> None:
    content = sealed(tmp_path / "model", b"a" + PLACE + b"b" + PLACE + b"c")
    check_seal(tmp_path / "model")

    assert content.endswith(b"b" + PLACE + b"c")
    for at in range(len(content)):
        written(tmp_path / "model", content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(UntrustedError):
            check_seal(tmp_path / "model")


def test_a_mark_that_is_put_before_the_seal_does_not_hide_what_was_changed(tmp_path: Path) -> None:
    content = sealed(tmp_path / "model", b"a" + PLACE + b"b")

    for added in (PLACE + content, content[:1] + PLACE + content[1:], content[:1] + content[1 : 1 + len(PLACE)] * 2):
        written(tmp_path / "model", added)
        with pytest.raises(UntrustedError, match="changed or damaged"):
            check_seal(tmp_path / "model")


def test_a_file_that_ends_within_the_digits_is_damaged(tmp_path: Path) -> None:
    content = sealed(tmp_path / "model", b"a" + PLACE)

    for end in range(len(content) - 64, len(content)):
        with pytest.raises(UntrustedError, match="changed or damaged"):
            check_seal(written(tmp_path / "model", content[:end]))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.gguf: cannot be read"):
        check_seal(tmp_path / "gone.gguf")
