from pathlib import Path

import gguf
import msgspec
import numpy as np
import pytest

from models.contracts.errors import UntrustedError
from models.contracts.release import METADATA_KEY, Release
from models.contracts.task import Label, Task
from models.seal import SEAL_KEY, check_seal
from quantize.package import package

TASK = Task(
    name="colours",
    instruction="",
    labels=(Label("red", "like blood"), Label("blue", "like the sky")),
    default_label="red",
)
WEIGHTS = np.arange(512, dtype=np.float32).reshape(2, 256)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("a model")
    writer.add_token_list(["a", "b"])
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


def read_release(path: Path) -> Release:
    return msgspec.json.decode(gguf.GGUFReader(path).get_field(METADATA_KEY).contents(), type=Release, strict=True)


def test_the_packaged_file_holds_the_release_and_all_that_was_there(model: Path, tmp_path: Path) -> None:
    release = Release(name="colours", number=3, task=TASK)

    package(model, release, tmp_path / "packaged.gguf")

    before, after = gguf.GGUFReader(model), gguf.GGUFReader(tmp_path / "packaged.gguf")
    assert read_release(tmp_path / "packaged.gguf") == release
    assert after.get_field("tokenizer.ggml.tokens").contents() == ["a", "b"]
    assert set(after.fields) == {*before.fields, METADATA_KEY, SEAL_KEY}
    assert after.tensors[0].tensor_type == gguf.GGMLQuantizationType.Q4_0
    assert bytes(after.tensors[0].data) == bytes(before.tensors[0].data)


def test_packaging_again_replaces_the_release(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "packaged.gguf"
    package(model, Release(name="colours", number=1, task=TASK), path)

    package(path, Release(name="colours", number=2, task=TASK), path)

    assert read_release(path).number == 2


def test_nothing_half_written_is_left(model: Path, tmp_path: Path) -> None:
    package(model, Release(name="colours", number=1, task=TASK), tmp_path / "packaged.gguf")

    assert {path.name for path in tmp_path.iterdir()} == {"model.gguf", "packaged.gguf"}


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
