"""A GGUF's own metadata to a `Release`; a shipped release by its name; the digest of a model file."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from models.contracts.errors import ConfigError, InputError, UntrustedError
from models.contracts.release import METADATA_KEY, Calibration, Prompt, Release, SecondOpinion
from models.contracts.task import Task
from models.contracts.wire import decode_json, decode_toml
from models.fields import ABSENT
from models.seal import check_seal, is_sealed

if TYPE_CHECKING:  # who asks a server has no llama.cpp
    from models.llama import Model

SHIPPED = Path(__file__).parent / "releases"
_CHUNK_BYTES = 1 << 20


class _Tagged(Struct):
    type: str = ""


def release_path(release: str | Path) -> Path:
    """Return the file of a release: a shipped one's name, or a path.

    Raises:
        ConfigError: there is none.
    """
    path = Path(release)
    if path.is_file():
        return path
    shipped = SHIPPED / f"{release}.gguf"
    if shipped.is_file():
        return shipped
    if path.is_dir():
        raise ConfigError(f"model `{release}`: is a folder; give the path of a GGUF in it")
    names = sorted(found.stem for found in SHIPPED.glob("*.gguf"))
    raise ConfigError(
        f"model `{release}`: no such file, and no shipped release of that name (there is {names}); "
        "give the path of a GGUF, or a shipped release's name"
    )


def check_digest(path: Path, sha256: str) -> None:
    """Compare a file with the digest it should have; no digest, no comparison.

    Raises:
        UntrustedError: it is another file, or damaged.
    """
    if sha256 and (found := digest_of(path)) != sha256.lower():
        if is_sealed(path):
            check_seal(path)  # it may be damaged, and then no digest is right
        raise UntrustedError(
            f"{path}: hashes to {found}, the configuration wants {sha256.lower()}; refused it: after an upgrade, or "
            f'with another `release`, set `sha256 = "{found}"` beside that, else somebody changed the file'
        )


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal.

    Raises:
        ConfigError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error
    return digest.hexdigest()


def read_release(model: "Model", task_file: str = "") -> Release:
    """Return the release that a model carries; one that carries none becomes a release of the task in a file.

    Raises:
        UntrustedError: what it carries is not a release, or the file was changed after it was made.
        ConfigError: it carries none and there is no task file, or that cannot be read; or it carries one and there is.
    """
    text = model.metadata(METADATA_KEY)
    if text is not None:
        if task_file:
            raise ConfigError(
                f"{model.path}: carries a release with a task of its own, and `task` is set to {task_file}; "
                "unset `task`, or take a model that carries none"
            )
        release = _decoded(text, f"{model.path}: `{METADATA_KEY}`")
        check_release(release, model.path)
        check_seal(model.path)
        return release
    if not task_file:
        raise ConfigError(
            f"{model.path}: carries no release (no `{METADATA_KEY}` in its metadata); "
            "set `task` to a task file to use it as an instruct model"
        )
    return _release_of(task_file, Prompt(kind="encoder") if model.pools_to_labels else Prompt(kind="chat"))


def second_path(release: Release, wanted: SecondOpinion, folder: Path) -> Path:
    """Return the file of the second opinion: one in `folder`, beside the release's own, or a shipped one.

    Raises:
        ConfigError: none of them is the one that was measured together with the release.
    """
    name = wanted.release.rpartition("-")[0]
    places = [folder / f"{wanted.release}.gguf", folder / f"{name}.gguf", SHIPPED / f"{name}.gguf"]
    for path in places:
        if path.is_file() and digest_of(path) == wanted.sha256:
            return path
    raise ConfigError(
        f"release {release.title} asks {wanted.release} for a second opinion, and no file of SHA-256 {wanted.sha256} "
        f"was found as {' or '.join(map(str, dict.fromkeys(places)))}; put it beside the release's own file"
    )


def read_decoder_release(file: str) -> Release:
    """Return the release that a decoder elsewhere is asked by: a release as JSON, or that of a task in a TOML file.

    Raises:
        UntrustedError: a release is wanted, and this is none, or it is an encoder's.
        ConfigError: it cannot be read.
    """
    path = Path(file)
    if path.suffix != ".json":
        return _release_of(file, Prompt(kind="chat"))
    release = _decoded(_text(file, "release"), file)
    check_release(release, path)
    if release.prompt.kind == "encoder":
        raise UntrustedError(f"{file}: release {release.title} has a prompt of kind `encoder`, and a decoder is asked")
    return release


def _decoded(text: str, where: str) -> Release:
    try:
        found, read = decode_json(text, _Tagged, where).type, Release.__struct_config__.tag
        if found != read:
            raise UntrustedError(f"{where}: is a `{found}`, this Headwater reads `{read}`; refused it: upgrade")
        return decode_json(text, Release, where)
    except InputError as error:
        raise UntrustedError(f"{error}; refused it") from error


def _release_of(task_file: str, prompt: Prompt) -> Release:
    task = decode_toml(_text(task_file, "task"), Task, task_file)
    return Release(name=task.name, number=1, task=task, prompt=prompt)


def _text(file: str, kind: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{file}: the {kind} file cannot be read: {reason}") from error


def check_release(release: Release, path: Path) -> None:
    """Check what the types do not say.

    Raises:
        UntrustedError: a part does not fit the others.
    """
    labels = release.task.label_names
    wrong = _calibration_faults(release.calibration, len(labels))
    wrong += [f"golden event for `{golden.label}`" for golden in release.golden if golden.label not in labels]
    wrong += [f"threshold for `{label}`" for label in release.policy.accept_at_by_label if label not in labels]
    wrong += _roles_faults(release)
    wrong += _second_opinion_faults(release)
    if wrong:
        raise UntrustedError(
            f"{path}: release {release.title} with labels {list(labels)}: {'; '.join(wrong)}; refused it"
        )


def _calibration_faults(calibration: Calibration, labels: int) -> list[str]:
    faults = []
    if not 0 < calibration.temperature < float("inf"):
        faults.append(f"calibration temperature {calibration.temperature}, above 0 wanted")
    if len(calibration.bias) not in (0, labels):
        faults.append(f"{len(calibration.bias)} calibration biases for {labels} labels")
    return faults


def _second_opinion_faults(release: Release) -> list[str]:
    weight = release.calibration.second_weight
    if release.second_opinion is None:
        return [f"weight {weight} of a second opinion, and none to ask"] if weight else []
    if release.prompt.kind != "encoder":
        return [f"a second opinion, with a prompt of kind `{release.prompt.kind}`; only encoders ask for one"]
    return []


def _roles_faults(release: Release) -> list[str]:
    if release.roles is None:
        return []
    copied = [field.name for field in release.task.fields if field.kind == "copied"]
    names = list(release.roles.names)
    if names[:1] != [ABSENT] or not set(names[1:]) <= set(copied) or len(set(names)) != len(names):
        return [f"a layer for the fields {names}, `{ABSENT}` and some of {copied} wanted"]
    if not release.roles.weights or len(release.roles.weights) % (4 * len(names)):
        return [f"a layer for the fields of {len(release.roles.weights)} bytes for {len(names)} names"]
    return []
