"""A GGUF and a release in, one file out that holds both, and the seal by which a changed byte is found."""

from pathlib import Path

import gguf

from models.contracts.release import METADATA_KEY, Release
from models.contracts.wire import encode
from models.seal import SEAL_KEY, UNSEALED, seal

_WRITTEN_BY_THE_WRITER = ("GGUF.", "general.architecture")


def package(model: Path, release: Release, target: Path) -> None:
    """Copy `model` to `target` with `release` in its metadata, in place of the one it may hold.

    `target` appears whole or not at all.
    """
    reader = gguf.GGUFReader(model)
    architecture = reader.get_field("general.architecture").contents()
    unfinished = target.with_name(target.name + ".unfinished")
    writer = gguf.GGUFWriter(unfinished, architecture)
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
    seal(unfinished)
    unfinished.rename(target)
