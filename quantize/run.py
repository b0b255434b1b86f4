"""A recipe to a measured, gated release: train, convert, compress, calibrate, measure, gate, package."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from models.contracts.errors import InputError
from models.contracts.release import Release, SecondOpinion
from models.contracts.task import Task
from models.release_file import SHIPPED, digest_of
from quantize import compress, gate
from quantize.card import card
from quantize.checkpoint import ASKED_BY, LLAMA_CPP, checkpoint_of, versions_of
from quantize.evaluate import (
    Calibrated,
    Labels,
    calibrated,
    held_out_the_same,
    labels_of,
    machine,
    measured,
    trial_of,
)
from quantize.examples import Examples, examples_of
from quantize.figures import Figures
from quantize.named_release import named_release
from quantize.package import package
from quantize.progress import Progress
from quantize.recipe import Candidate, Recipe, TrainEncoder, TrainNothing, read_task
from quantize.report import report
from quantize.start import base_folder
from quantize.steps import Code, Steps, alone

T = TypeVar("T")

_DRAWN = (
    *("examples", "labelled", "events", "event_types", "product_groups"),
    *("expand", "envelope", "values", "noise", "records"),
)
_WORDS = ("words.toml", "product_words.toml", "boilerplate.toml", "strangers.toml")
_DRAWN_BY = (
    *(Code(f"quantize.{name}") for name in _DRAWN),
    *(Code(f"models.{name}") for name in ("header", "fields")),
    *(Path(__file__).with_name(name) for name in _WORDS),
)
_COMPRESSED_BY = (Code("quantize.compress"), Code("models.llama"))
_JUDGED_BY = (
    Code("quantize.evaluate"),
    Code("quantize.product_groups"),
    Code("quantize.calibrate"),
    Code("quantize.measure"),
    Code("quantize.compress"),
)
_JUDGED_WITH = ("numpy", "scikit-learn", "scipy")
_TRIED_BY = (
    Code("quantize.injection"),
    Path(__file__).with_name("injections.toml"),
    Code("quantize.baseline"),
)


class Finished(Struct, frozen=True):
    """A release's file, and why it is not to be shipped, if so."""

    path: Path
    blocked: tuple[str, ...]
    figures: Figures


def run(recipe: Recipe, root: Path, build: Path, progress: Progress) -> Finished:
    """Make a release by its recipe; what it names lies below `root`, what is made below `build`.

    A release that misses a limit is written, too, so that it can be looked at; its card and its provenance say so.

    Raises:
        ConfigError, InputError, UnavailableError: a part of the recipe cannot be had, read or done, and why; or another
            run of it is at work.
    """
    folder = build / "quantize" / recipe.name
    with alone(folder):
        return _made(recipe, root, build, Steps(folder, progress.tell), progress)


def _made(recipe: Recipe, root: Path, build: Path, steps: Steps, progress: Progress) -> Finished:
    task = read_task(root / recipe.task)
    _check_severity(recipe, task)
    progress.tell(f"reading {recipe.data.path}")
    examples = examples_of(recipe.data, root, task, recipe.seed)
    second = _second_opinion(recipe, task, examples)
    if examples.doubt:
        progress.tell(examples.doubt)
    base = None if recipe.base.kind == "none" else _base(recipe, root, build)
    beside = [root / path for path in (recipe.data.foreign, recipe.data.quiet) if path]
    drawn = (recipe.data, examples.digest, *beside, task, recipe.seed, *_DRAWN_BY)

    checkpoint = checkpoint_of(
        recipe, task, examples, root=root, base=base, steps=steps, drawn=drawn, progress=progress
    )
    draft = Release(
        name=recipe.name,
        number=recipe.number,
        task=task,
        prompt=checkpoint.prompt,
        roles=checkpoint.roles,
        second_opinion=second,
    )
    files = [(one, _compressed(one, checkpoint.gguf, steps)) for one in _candidates(recipe)]
    asked = (draft, *drawn, *ASKED_BY, *_JUDGED_BY, versions_of(LLAMA_CPP, *_JUDGED_WITH))
    timed = (*asked, machine())
    before = _done(
        steps, "label-by-16-bits", (checkpoint.gguf, *asked), Labels,
        lambda: labels_of(checkpoint.gguf, draft, examples, progress),
    )  # fmt: skip

    def tried(candidate: Candidate, file: Path) -> compress.Trial:
        return _done(
            steps, _named("try", candidate), (file, before, candidate, *timed), compress.Trial,
            lambda: trial_of(candidate, file, before, draft, found=examples, progress=progress),
        )  # fmt: skip

    trials = [tried(candidate, file) for candidate, file in files]
    limits = recipe.gate
    best = compress.choose(trials, gate.limits_of(recipe), limits.max_label_flips, limits.max_calibration_error)
    small, max_error = files[trials.index(best)][1], limits.max_error_among_accepted
    sure = _done(
        steps, "calibrate", (small, max_error, *asked), Release,
        lambda: calibrated(small, draft, max_error, found=examples, progress=progress),
    )  # fmt: skip
    candidate = Calibrated(sure, trials, trials.index(best))
    figures = _done(
        steps, "measure", (checkpoint.gguf, small, candidate, recipe.severity, *timed, *_shipped(recipe), *_TRIED_BY),
        Figures, lambda: measured(recipe, candidate, small, checkpoint.gguf, found=examples, progress=progress),
    )  # fmt: skip
    figures = replace(figures, minutes={name: round(took / 60, 1) for name, took in steps.seconds.items()})
    blocked = gate.reasons_to_block(figures, recipe.gate, gate.limits_of(recipe))
    release = replace(candidate.release, provenance=_provenance(recipe, examples, figures, blocked))
    return Finished(
        _published(recipe, release, figures, blocked, small=small, releases=build / "releases"), blocked, figures
    )


def _base(recipe: Recipe, root: Path, build: Path) -> Path:
    training = recipe.training
    layers = training.layers or 0 if isinstance(training, TrainEncoder) else 0
    return base_folder(recipe.base, root, build / "bases", finished=isinstance(training, TrainNothing), layers=layers)


def _shipped(recipe: Recipe) -> list[Path]:
    """Return the release of that name which is shipped now, to be measured beside the new one."""
    path = SHIPPED / f"{recipe.name}.gguf"
    return [path] if path.is_file() else []


def _candidates(recipe: Recipe) -> tuple[Candidate, ...]:
    return (Candidate(type="F16"),) if recipe.base.kind == "gguf" else recipe.quantization.candidates


def _compressed(candidate: Candidate, whole: Path, steps: Steps) -> Path:
    if candidate.type == "F16":
        return whole

    def work(out: Path) -> None:
        done = compress.compress(whole, out / "small.gguf", candidate)
        (out / "compressed.json").write_bytes(msgspec.json.encode(replace(done, path="small.gguf")))

    inputs = [whole, candidate, *_COMPRESSED_BY, versions_of(LLAMA_CPP)]
    return steps.run(_named("compress", candidate), inputs, work) / "small.gguf"


def _named(step: str, candidate: Candidate) -> str:
    return f"{step} {candidate.title}".replace(" ", "-").replace(",", "")


def _done(steps: Steps, name: str, inputs: Sequence[object], kind: type[T], work: Callable[[], T]) -> T:
    """Return the record that a step left, or leaves."""

    def write(out: Path) -> None:
        (out / "record.json").write_bytes(msgspec.json.encode(work()))

    return msgspec.json.decode((steps.run(name, inputs, write) / "record.json").read_bytes(), type=kind)


def _published(
    recipe: Recipe, release: Release, figures: Figures, blocked: Sequence[str], *, small: Path, releases: Path
) -> Path:
    """Write the release, and beside it its figures, card and report; they get their names when all four are there."""
    path = releases / f"{release.title}.gguf"
    unfinished = releases / f"{release.title}.unfinished"
    model = unfinished / path.name
    try:
        shutil.rmtree(unfinished, ignore_errors=True)  # of a run that was killed
        unfinished.mkdir(parents=True)
        package(small, release, model)
        model.with_suffix(".json").write_bytes(msgspec.json.format(msgspec.json.encode(figures), indent=1))
        model.with_suffix(".md").write_text(card(recipe, release, figures, model, blocked), encoding="utf-8")
        model.with_suffix(".html").write_text(report(recipe, release, figures, blocked), encoding="utf-8")
        for kind in (".json", ".md", ".html", ".gguf"):  # a model never lies beside the card of an older one
            model.with_suffix(kind).replace(path.with_suffix(kind))
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return path


def _provenance(recipe: Recipe, examples: Examples, figures: Figures, blocked: Sequence[str]) -> dict[str, str]:
    peer = figures.peer(gate.N_GRAMS)
    told = {
        "recipe": msgspec.json.encode(recipe).decode(),
        "data": f"{recipe.data.path}: {recipe.data.attribution}",
        "data_sha256": examples.digest,
        "held_out_sha256": examples.test.digest,
        "data_licence": recipe.data.licence,
        "base_licence": recipe.base.licence,
        "licence": recipe.licence,
        "quantization": figures.chosen,
        "accuracy": str(figures.accuracy),
        "macro_f1": str(figures.macro_f1),
        "macro_f1_of_n_grams": "" if peer is None else f"{peer.macro_f1:.3f}",
        "accuracy_gain_over_second": "" if figures.gain_over_second is None else str(figures.gain_over_second),
        "ece": str(figures.ece),
        "label_flips": "" if figures.label_flips is None else f"{figures.label_flips:.4f}",
        "minutes": f"{sum(figures.minutes.values()):.1f}",
        "machine": figures.machine,
        "blocked": "; ".join(blocked),
    }
    return {name: value for name, value in told.items() if value}


def _second_opinion(recipe: Recipe, task: Task, examples: Examples) -> SecondOpinion | None:
    """Return which release the recipe asks for a second opinion, as the file that is shipped of it now."""
    if recipe.second_opinion is None:
        return None
    path, second = named_release(recipe.second_opinion)
    if second.task.label_names != task.label_names:
        raise InputError(
            f"`second_opinion` is {second.title}, which has the labels {list(second.task.label_names)}; those of task "
            f"{task.name} wanted, in order: {list(task.label_names)}"
        )
    if not (_made_from_the_same(second, recipe, examples) and held_out_the_same(second, examples)):
        raise InputError(
            f"`second_opinion` is {second.title}, which may have held out other events: what it learnt from would be "
            "thought to be what it knows; take one that was made from the same data, with the same `[data]`"
        )
    return SecondOpinion(release=second.title, sha256=digest_of(path))


def _made_from_the_same(other: Release, recipe: Recipe, examples: Examples) -> bool:
    """Tell whether a release was made from these data, parted in this way."""
    try:
        made_by = msgspec.json.decode(other.provenance.get("recipe", ""), type=Recipe)
    except msgspec.DecodeError:
        return False
    return made_by.data == recipe.data and other.provenance.get("data_sha256") == examples.digest


def _check_severity(recipe: Recipe, task: Task) -> None:
    if recipe.severity and sorted(recipe.severity) != sorted(task.label_names):
        raise InputError(
            f"`severity` is {list(recipe.severity)}; all labels of task {task.name} wanted: {list(task.label_names)}"
        )
