"""What a recipe trains, as a 16-bit GGUF: the checkpoint, its conversion, and the prompt that it was trained on."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from models.contracts.release import Prompt, Roles
from models.contracts.task import Task
from models.llama import Model
from models.release_file import release_path
from quantize import convert, round_trip
from quantize.examples import Examples
from quantize.progress import Progress
from quantize.recipe import Recipe, TrainDecoder, TrainEncoder, TrainFromScratch
from quantize.steps import Code, Steps

_CONVERTED_BY = (Code("quantize.convert"), Code("quantize.llama_convert"), Code("quantize.round_trip"))


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
    base: Path | None,
    steps: Steps,
    drawn: Sequence[object],
    progress: Progress,
) -> Checkpoint:
    """Train what is to be trained, and convert it.

    Raises:
        InputError: the base cannot be trained or converted, or does not say as a GGUF what it said before.
    """
    if recipe.base.kind == "gguf" and base is not None:
        return Checkpoint(base, _prompt(recipe, base))
    folder = _trained(recipe, task, examples, base=base, steps=steps, drawn=drawn, progress=progress)
    worded = isinstance(recipe.training, TrainEncoder) and bool(recipe.training.wording)

    def work(out: Path) -> None:
        convert.convert(folder, out / "f16.gguf")
        outcome = round_trip.check(folder, out / "f16.gguf", examples.test.bodies, worded=worded)
        (out / "round_trip.json").write_bytes(msgspec.json.encode(outcome))

    gguf = steps.run("convert", [folder, worded, *_CONVERTED_BY], work) / "f16.gguf"
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
    base: Path | None,
    steps: Steps,
    drawn: Sequence[object],
    progress: Progress,
) -> Path:
    """Return the folder of the trained checkpoint; torch is imported only where something is left to train."""
    training, seed, tick = recipe.training, recipe.seed, progress.bar("training")
    if isinstance(training, TrainFromScratch):

        def work(out: Path) -> None:
            from quantize.scratch import train_from_scratch  # noqa: PLC0415

            train_from_scratch(examples, task, training, seed=seed, out=out, tick=tick)

        ours = ("scratch", "train", "network", "warm_start", "teacher", "baseline", "ask", "vocabulary")
        taught_by = [release_path(training.teacher)] if training.teacher else []
        return steps.run("train", [training, *taught_by, *drawn, *(Code(f"quantize.{name}") for name in ours)], work)
    assert base is not None
    if isinstance(training, TrainEncoder):

        def work(out: Path) -> None:
            from quantize.encoder_training import train_encoder  # noqa: PLC0415

            train_encoder(examples, task, base, training, seed=seed, out=out, tick=tick)

        modules = ("quantize.encoder_training", "quantize.four_bits", "models.wording", "models.roles", "models.heads")
        return steps.run("train", [training, base, *drawn, *map(Code, modules)], work)
    if isinstance(training, TrainDecoder):

        def work(out: Path) -> None:
            from quantize.decoder_training import train_decoder  # noqa: PLC0415

            train_decoder(examples, task, base, training, seed=seed, out=out, tick=tick)

        return steps.run("train", [training, base, *drawn, Code("quantize.decoder_training")], work)
    return base


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
