"""A GGUF and a release in, one file out that holds both, and the seal by which a changed byte is found."""

from pathlib import Path

import gguf

from models.contracts.errors import InputError
from models.contracts.release import METADATA_KEY, Release
from models.contracts.wire import encode
from models.llama import Model
from models.release_file import read_release
from models.seal import SEAL_KEY, UNSEALED, seal
from quantize.steps import told_by_the_system

_WRITTEN_BY_THE_WRITER = ("GGUF.", "general.architecture")


def package(model: Path, release: Release, target: Path) -> None:
    """Copy `model` to `target` with `release` in its metadata, in place of the one it may hold.

    `target` appears whole or not at all, and only when a gateway's own reader takes it.

    Raises:
        InputError: `model` is one of several files that are one model.
        UntrustedError: what was written cannot be read back.
        OSError: there is no room for it.
    """
    reader = gguf.GGUFReader(model)
    _check_whole(reader, model)
    unfinished = target.with_name(target.name + ".unfinished")
    try:
        with told_by_the_system(target.parent):
            _write(reader, release, unfinished)
        seal(unfinished)
        with Model(unfinished, vocabulary_only=True) as written:
            read_release(written)
        unfinished.rename(target)
    finally:
        unfinished.unlink(missing_ok=True)


def _check_whole(reader: gguf.GGUFReader, model: Path) -> None:
    split = reader.get_field("split.count")
    files = 1 if split is None else int(split.contents())
    if files > 1:
        raise InputError(
            f"{model}: one of {files} files that are one model, and a release is one file; "
            "put them together with `llama-gguf-split --merge`"
        )


def _write(reader: gguf.GGUFReader, release: Release, target: Path) -> None:
    """Write everything that `reader` has, the release, and a place for the seal."""
    writer = gguf.GGUFWriter(target, reader.get_field("general.architecture").contents())
    writer.data_alignment = int(reader.alignment)  # as `general.alignment`, which is copied, says
    for field in reader.fields.values():
        if field.name.startswith(_WRITTEN_BY_THE_WRITER) or field.name in (METADATA_KEY, SEAL_KEY):
            continue
        inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=inner)
    writer.add_string(SEAL_KEY, UNSEALED)
    writer.add_string(METADATA_KEY, encode(release).decode())
    for tensor in reader.tensors:
        writer.add_tensor_info(
            tensor.name, tensor.data.shape, tensor.data.dtype, tensor.data.nbytes, tensor.tensor_type
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in reader.tensors:
        writer.write_tensor_data(tensor.data)
    writer.close()
