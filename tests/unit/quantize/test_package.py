import resource
from pathlib import Path

import gguf
import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from models.contracts.errors import InputError, UntrustedError
from models.contracts.release import METADATA_KEY, Golden, Release
from models.contracts.task import Label, Task
from models.seal import SEAL_KEY, check_seal
from quantize.package import package
from tests.fakes.tiny_models import RELEASE, tiny_encoder

TASK = Task(
    name="colours",
    instruction="",
    labels=(Label("red", "like blood"), Label("blue", "like the sky")),
    default_label="red",
)
WEIGHTS = np.arange(512, dtype=np.float32).reshape(2, 256)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return written(tmp_path / "model.gguf")


def written(path: Path, *, alignment: int | None = None, files: int | None = None, kind: str = "no_vocab") -> Path:
    """Write a model of two tensors that llama.cpp opens, or does not with another `kind` of vocabulary."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("a model")
    writer.add_tokenizer_model(kind)
    writer.add_vocab_size(2)
    writer.add_token_list(["a", "b"])
    if alignment:
        writer.add_custom_alignment(alignment)
    if files:
        writer.add_uint16("split.count", files)
    writer.add_tensor("bias", np.ones(3, dtype=np.float32))  # ends where no alignment is
    writer.add_token_types([gguf.TokenType.NORMAL, gguf.TokenType.CONTROL])
    writer.add_tensor(
        "weights",
        gguf.quants.quantize(WEIGHTS, gguf.GGMLQuantizationType.Q4_0),
        raw_dtype=gguf.GGMLQuantizationType.Q4_0,
    )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def tensors(reader: gguf.GGUFReader) -> dict[str, bytes]:
    return {str(tensor.name): bytes(tensor.data) for tensor in reader.tensors}


def read_release(path: Path) -> Release:
    return msgspec.json.decode(gguf.GGUFReader(path).get_field(METADATA_KEY).contents(), type=Release, strict=True)


def test_the_packaged_file_holds_the_release_and_all_that_was_there(model: Path, tmp_path: Path) -> None:
    release = Release(name="colours", number=3, task=TASK)

    package(model, release, tmp_path / "packaged.gguf")

    before, after = gguf.GGUFReader(model), gguf.GGUFReader(tmp_path / "packaged.gguf")
    assert read_release(tmp_path / "packaged.gguf") == release
    assert after.get_field("tokenizer.ggml.tokens").contents() == ["a", "b"]
    assert set(after.fields) == {*before.fields, METADATA_KEY, SEAL_KEY}
    assert after.tensors[1].tensor_type == gguf.GGMLQuantizationType.Q4_0
    assert tensors(after) == tensors(before)


@pytest.mark.parametrize("alignment", [8, 64, 256])
def test_tensors_lie_where_the_models_own_alignment_wants_them(tmp_path: Path, alignment: int) -> None:
    model = written(tmp_path / "model.gguf", alignment=alignment)

    package(model, Release(name="colours", number=1, task=TASK), tmp_path / "packaged.gguf")

    before, after = gguf.GGUFReader(model), gguf.GGUFReader(tmp_path / "packaged.gguf")
    assert after.alignment == alignment
    assert tensors(after) == tensors(before)


def test_one_of_several_files_that_are_one_model_is_refused(tmp_path: Path) -> None:
    model = written(tmp_path / "model.gguf", files=3)

    with pytest.raises(InputError) as refused:
        package(model, Release(name="colours", number=1, task=TASK), tmp_path / "packaged.gguf")

    assert str(refused.value) == (
        f"{model}: one of 3 files that are one model, and a release is one file; "
        "put them together with `llama-gguf-split --merge`"
    )
    assert list(tmp_path.iterdir()) == [model]


def test_a_model_that_was_split_into_one_file_is_whole(tmp_path: Path) -> None:
    package(
        written(tmp_path / "model.gguf", files=1), Release(name="colours", number=1, task=TASK), tmp_path / "whole.gguf"
    )

    assert read_release(tmp_path / "whole.gguf").number == 1


@pytest.mark.parametrize(
    ("kind", "labels", "said"),
    [
        ("no such vocabulary", "red blue", "llama.cpp does not load it"),
        ("no_vocab", "red green", "golden event for `blue`"),
    ],
)
def test_what_cannot_be_read_back_is_not_published(tmp_path: Path, kind: str, labels: str, said: str) -> None:
    model = written(tmp_path / "model.gguf", kind=kind)
    task = replace(TASK, labels=tuple(Label(name, "a colour") for name in labels.split()))
    sky = Golden(text="sky", label="blue", confidence=1.0)
    target = tmp_path / "packaged.gguf"
    target.write_bytes(b"the one before")

    with pytest.raises(UntrustedError, match=said):
        package(model, Release(name="colours", number=1, task=task, golden=(sky,)), target)

    assert target.read_bytes() == b"the one before"
    assert {path.name for path in tmp_path.iterdir()} == {"model.gguf", "packaged.gguf"}


def test_packaging_again_replaces_the_release(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "packaged.gguf"
    package(model, Release(name="colours", number=1, task=TASK), path)

    package(path, Release(name="colours", number=2, task=TASK), path)

    assert read_release(path).number == 2


def test_nothing_half_written_is_left(model: Path, tmp_path: Path) -> None:
    package(model, Release(name="colours", number=1, task=TASK), tmp_path / "packaged.gguf")

    assert {path.name for path in tmp_path.iterdir()} == {"model.gguf", "packaged.gguf"}


def test_of_a_full_disk_the_system_speaks_and_nothing_is_left(tmp_path: Path) -> None:
    model = tiny_encoder(tmp_path / "model.gguf")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (model.stat().st_size * 9 // 10, before[1]))  # ends within the weights
    try:
        with pytest.raises(OSError, match="File too large"):
            package(model, RELEASE, tmp_path / "packaged.gguf")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert list(tmp_path.iterdir()) == [model]


def test_every_changed_byte_is_found(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "packaged.gguf"
    package(model, Release(name="colours", number=1, task=TASK), path)
    whole = path.read_bytes()
    check_seal(path)

    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(UntrustedError):
            check_seal(path)


def test_a_file_that_ends_early_or_late_is_found(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "packaged.gguf"
    package(model, Release(name="colours", number=1, task=TASK), path)
    whole = path.read_bytes()

    for other in (whole[:-1], whole + b"\0", whole[: len(whole) // 2], b""):
        path.write_bytes(other)
        with pytest.raises(UntrustedError):
            check_seal(path)
