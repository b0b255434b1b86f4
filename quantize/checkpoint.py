"""What a recipe trains, as a 16-bit GGUF: the checkpoint, its conversion, and the prompt that it was trained on."""

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from models.contracts.errors import InputError
from models.contracts.release import METADATA_KEY, Prompt, Roles, WordingName
from models.contracts.task import Task
from models.llama import Model
from models.release_file import read_release, release_path
from quantize import convert, round_trip
from quantize.examples import Examples
from quantize.progress import Progress
from quantize.recipe import Recipe, TrainDecoder, TrainEncoder, TrainFromScratch
from quantize.steps import Code, Steps

LLAMA_CPP = "llama-cpp-python"
_ASKED = (
    *("classifier", "encoder", "decoder", "decoder_task", "wording", "masking", "roles", "heads", "labels"),
    *("calibration", "llama", "vocabulary", "prompt", "transcript", "scribe", "lane", "ends", "window", "precedents"),
)
ASKED_BY = (Code("quantize.ask"), *(Code(f"models.{name}") for name in _ASKED))
_MOST_LISTED = 8  # names, in an error
_CONVERTED_BY = (
    *(Code(f"quantize.{name}") for name in ("convert", "llama_convert", "round_trip", "pretrained")),
    *(Code(f"models.{name}") for name in ("llama", "wording", "masking")),
)


class Checkpoint(Struct, frozen=True):
    """A model that answers the task, before it is compressed."""

    gguf: Path
    prompt: Prompt
    roles: Roles | None = None


def checkpoint_of(
    recipe: Recipe,
    task: Task,
    examples: Examples,
    *,
    root: Path,
    base: Path | None,
    steps: Steps,
    drawn: Sequence[object],
    progress: Progress,
) -> Checkpoint:
    """Train what is to be trained, and convert it; what the recipe names lies below `root`.

    Raises:
        InputError: the base cannot be trained or converted, or does not say as a GGUF what it said before; or it is a
            release that answers something else.
        UntrustedError: the base is a release that was changed after it was made.
    """
    if recipe.base.kind == "gguf" and base is not None:
        return _finished(base, task)
    folder = _trained(recipe, task, examples, root=root, base=base, steps=steps, drawn=drawn, progress=progress)
    wording: WordingName = recipe.training.wording if isinstance(recipe.training, TrainEncoder) else ""

    def work(out: Path) -> None:
        convert.convert(folder, out / "f16.gguf")
        outcome = round_trip.check(folder, out / "f16.gguf", examples.test.bodies, wording=wording)
        (out / "round_trip.json").write_bytes(msgspec.json.encode(outcome))

    made_with = versions_of(LLAMA_CPP, "torch", "transformers")
    inputs = [folder, wording, examples.test.bodies, *_CONVERTED_BY, made_with]
    gguf = steps.run("convert", inputs, work) / "f16.gguf"
    roles = None
    if isinstance(recipe.training, TrainEncoder):
        from quantize.encoder_training import read_roles  # noqa: PLC0415 - torch takes seconds

        roles = read_roles(folder)
    return Checkpoint(gguf, _prompt(recipe, gguf), roles)


def _trained(
    recipe: Recipe,
    task: Task,
    examples: Examples,
    *,
    root: Path,
    base: Path | None,
    steps: Steps,
    drawn: Sequence[object],
    progress: Progress,
) -> Path:
    """Return the folder of the trained checkpoint; torch is imported only where something is left to train."""
    training, seed = recipe.training, recipe.seed
    if isinstance(training, TrainFromScratch):
        taught = replace(training, teacher=_teacher(training.teacher, root))

        def work(out: Path) -> None:
            from quantize.scratch import train_from_scratch  # noqa: PLC0415

            train_from_scratch(examples, task, taught, seed=seed, out=out, tick=progress.bar("training"))

        ours = ("scratch", "train", "network", "warm_start", "teacher", "baseline", "ask", "vocabulary")
        code = [Code(f"quantize.{name}") for name in ours]
        taught_by = (release_path(taught.teacher), *ASKED_BY, versions_of(LLAMA_CPP)) if taught.teacher else ()
        return steps.run("train", [training, *taught_by, *drawn, *code, _trained_with("scikit-learn")], work)
    assert base is not None
    if isinstance(training, TrainEncoder):

        def work(out: Path) -> None:
            from quantize.encoder_training import train_encoder  # noqa: PLC0415

            train_encoder(examples, task, base, training, seed=seed, out=out, tick=progress.bar("training"))

        code = [
            *(Code(f"quantize.{name}") for name in ("encoder_training", "four_bits", "pretrained")),
            *(Code(f"models.{name}") for name in ("wording", "masking", "roles", "heads")),
        ]
        return steps.run("train", [training, base, *drawn, *code, _trained_with()], work)
    if isinstance(training, TrainDecoder):

        def work(out: Path) -> None:
            from quantize.decoder_training import train_decoder  # noqa: PLC0415

            train_decoder(examples, task, base, training, seed=seed, out=out, tick=progress.bar("training"))

        code = [Code("quantize.decoder_training"), Code("quantize.pretrained"), Code("models.prompt")]
        return steps.run("train", [training, base, *drawn, *code, _trained_with("peft")], work)
    return base


def versions_of(*packages: str) -> dict[str, str]:
    """Return which version of each is installed, `""` where none is; nothing is imported for that."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = ""
    return found


def _trained_with(*others: str) -> dict[str, str]:
    return versions_of("torch", "transformers", "tokenizers", *others)


def _teacher(named: str, root: Path) -> str:
    """Return a shipped release's name as it is, and the path of a file below `root`."""
    return str(root / named) if named.endswith(".gguf") else named


def _finished(gguf: Path, task: Task) -> Checkpoint:
    """Return a model that nothing is trained from; a release is asked as it was made to be asked.

    Raises:
        InputError: it is a release of another task.
        UntrustedError: it is a release that was changed after it was made.
    """
    with Model(gguf) as model:
        if model.metadata(METADATA_KEY) is None:
            return Checkpoint(gguf, Prompt(kind="encoder" if model.pools_to_labels else "chat"))
        release = read_release(model)
    for what, found, wanted in (
        ("labels", sorted(release.task.label_names), sorted(task.label_names)),
        ("fields", _fields_of(release.task), _fields_of(task)),
    ):
        if found != wanted:
            raise InputError(
                f"{gguf}: is release {release.title}, which has the {what} {_listed(found)}; task {task.name} has "
                f"{_listed(wanted)}: take a task file with the release's, or a model without a release"
            )
    return Checkpoint(gguf, release.prompt, release.roles)


def _fields_of(task: Task) -> list[str]:
    """Return each field with its choices, in order: a decoder writes them in it."""
    return [f"{field.name} ({' | '.join(field.choices)})" if field.choices else field.name for field in task.fields]


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_MOST_LISTED])
    return f"{shown} and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else shown or "none"


def _prompt(recipe: Recipe, gguf: Path) -> Prompt:
    if isinstance(recipe.training, TrainFromScratch):
        from quantize.scratch import PROMPT  # noqa: PLC0415 - torch takes seconds

        return PROMPT
    with Model(gguf) as model:
        if not model.pools_to_labels:
            return Prompt(kind="chat")
    if isinstance(recipe.training, TrainEncoder):
        return Prompt(kind="encoder", wording=recipe.training.wording, max_tokens=2 * recipe.training.max_tokens)
    return Prompt(kind="encoder")
