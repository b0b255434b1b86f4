import ast
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from models.contracts.errors import ConfigError, InputError, UntrustedError
from models.contracts.release import Prompt
from models.contracts.task import Label, Task
from models.llama import Model
from models.release_file import SHIPPED, read_release
from quantize import run
from quantize.checkpoint import ASKED_BY, Checkpoint, checkpoint_of, versions_of
from quantize.evaluate import Labels
from quantize.examples import Examples, HeldOut
from quantize.expand import Example
from quantize.labelled import FOLDS
from quantize.package import package
from quantize.progress import Progress
from quantize.recipe import Base, Data, Recipe, TrainDecoder, TrainEncoder, TrainFromScratch, Training, TrainNothing
from quantize.steps import Code, Steps, Work, digest_of_inputs
from tests.fakes import measured
from tests.fakes.tiny_models import RELEASE, TASK, tiny_decoder, tiny_encoder, tiny_reader

TASK_FILE = Path(__file__).parents[3] / "models" / "tasks" / "soc-triage.toml"
FINISHED = measured.recipe(base=Base(kind="gguf", path="model.gguf"), training=TrainNothing())
BASES: dict[type, Base] = {
    TrainFromScratch: Base(kind="none"),
    TrainEncoder: Base(kind="encoder", path="base"),
    TrainDecoder: Base(kind="decoder", path="base"),
    TrainNothing: Base(kind="decoder", path="base"),
}
# A training's values count, and so does what is read at the path of a release; states and errors make no weights.
DECIDES_NOTHING = {"quantize.recipe", "quantize.named_release", "quantize.train"}
trainings = pytest.mark.parametrize("training", [TrainFromScratch(), TrainEncoder(), TrainDecoder()], ids=repr)


class ReachedError(Exception):
    """The step that is looked at."""


class Keys(Steps):
    """Tells what goes into the steps, and does none of them."""

    def __init__(self, done: Path, until: str) -> None:
        super().__init__(done, lambda _: None)
        self._done, self._until = done, until
        self.inputs: dict[str, Sequence[object]] = {}

    def run(self, name: str, inputs: Sequence[object], work: Work) -> Path:
        self.inputs[name] = inputs
        if name == self._until:
            raise ReachedError
        return self._done


def held_out(*bodies: str) -> HeldOut:
    return HeldOut([Example(body, "benign", "door", {}) for body in bodies], np.arange(len(bodies)))


def examples(*tested: str) -> Examples:
    return Examples(
        draw=lambda _: [],
        calibration=held_out(),
        test=held_out(*tested),
        foreign=[],
        foreign_test=[],
        digest="0",
    )


def inputs_of(
    step: str, training: Training, folder: Path, *tested: str, progress: Progress | None = None
) -> Sequence[object]:
    """Return what goes into a step of a recipe below `folder`."""
    base = folder / "base"
    base.mkdir(exist_ok=True)
    recipe = measured.recipe(base=BASES[type(training)], training=training)
    keys = Keys(base, until=step)
    with pytest.raises(ReachedError):
        checkpoint_of(
            recipe, TASK, examples(*tested), root=folder, base=base, steps=keys, drawn=run._DRAWN_BY,
            progress=progress or Progress(),
        )  # fmt: skip
    return keys.inputs[step]


def imports(module: str) -> set[str]:
    """Return which of our modules another one imports, but for the contracts."""
    found = find_spec(module)
    assert found is not None
    assert found.origin is not None
    tree = ast.parse(Path(found.origin).read_text(encoding="utf-8"))
    names = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    ours = {name for name in names if name.startswith(("models.", "quantize."))}
    return {name for name in ours if not name.startswith("models.contracts")}


def reached_from(*modules: str) -> Iterator[str]:
    left, seen = list(modules), set[str]()
    while left:
        if (module := left.pop()) not in seen:
            seen.add(module)
            left += imports(module)
            yield module


def modules_in(inputs: Sequence[object]) -> set[str]:
    return {one.module for one in inputs if isinstance(one, Code)}


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Put a version of a package where it is found first."""
    site = tmp_path / "site"

    def install(package: str, version: str) -> None:
        about = site / f"{package.replace('-', '_')}-{version}.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n", "utf-8")
        monkeypatch.syspath_prepend(site)

    return install


def finished(gguf: Path, task: Task = TASK, recipe: Recipe = FINISHED) -> Checkpoint:
    return checkpoint_of(
        recipe, task, examples(), root=gguf.parent, base=gguf, steps=Steps(gguf.parent, print), drawn=[],
        progress=Progress(),
    )  # fmt: skip


def test_a_gguf_that_is_a_release_is_asked_as_it_was_made_to_be_asked(tmp_path: Path) -> None:
    worded, plain = tiny_reader(tmp_path / "worded.gguf"), tiny_decoder(tmp_path / "plain.gguf")
    with Model(worded) as model:
        release = read_release(model)

    assert release.prompt.wording
    assert release.roles is not None
    assert finished(worded) == Checkpoint(worded, release.prompt, release.roles)
    assert finished(plain) == Checkpoint(plain, RELEASE.prompt)


def test_a_gguf_without_a_release_is_asked_by_what_it_is(tmp_path: Path) -> None:
    encoder = tiny_encoder(tmp_path / "encoder.gguf", carries_release=False)
    decoder = tiny_decoder(tmp_path / "decoder.gguf", release=None)

    assert finished(encoder) == Checkpoint(encoder, Prompt(kind="encoder"))
    assert finished(decoder) == Checkpoint(decoder, Prompt(kind="chat"))


def test_the_recipes_task_may_say_and_sort_otherwise_what_a_release_answers(tmp_path: Path) -> None:
    labels = tuple(Label(label.name, f"{label.description} here") for label in reversed(TASK.labels))
    task = replace(TASK, name="ours", labels=labels, instruction="Another.", default_label="critical")

    assert finished(tiny_reader(tmp_path / "model.gguf"), task).roles is not None


def test_a_release_that_answers_something_else_is_refused(tmp_path: Path) -> None:
    path = tiny_reader(tmp_path / "model.gguf")
    labels = (*TASK.labels, Label("unknown", "nobody knows"))
    with pytest.raises(InputError) as refused:
        finished(path, replace(TASK, labels=labels))
    assert str(refused.value) == (
        f"{path}: is release tiny-3, which has the labels benign, critical, suspicious; task soc-triage has "
        "benign, critical, suspicious, unknown: take a task file with the release's, or a model without a release"
    )

    with pytest.raises(InputError, match=r"fields source, technique \(T1110 \| T1190\), observable; .* has none: "):
        finished(path, replace(TASK, fields=(), fields_for=()))
    with pytest.raises(InputError, match="the fields source, "):
        finished(path, replace(TASK, fields=tuple(reversed(TASK.fields))))


def test_a_release_that_was_changed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    package(tiny_decoder(tmp_path / "bare.gguf"), RELEASE, path)
    assert finished(path).prompt == RELEASE.prompt

    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UntrustedError, match="its seal says"):
        finished(path)


def test_every_module_that_asks_a_model_is_in_the_key_of_what_is_asked() -> None:
    known = modules_in([*ASKED_BY, *run._DRAWN_BY])

    assert set(reached_from("models.encoder", "models.decoder")) - known == set()


@pytest.mark.parametrize(
    ("training", "module"),
    [
        (TrainFromScratch(), "quantize.scratch"),
        (TrainEncoder(), "quantize.encoder_training"),
        (TrainDecoder(), "quantize.decoder_training"),
    ],
)
def test_every_module_that_trains_is_in_the_key_of_the_training(
    training: Training, module: str, tmp_path: Path
) -> None:
    known = modules_in(inputs_of("train", training, tmp_path))

    assert {module, *imports(module)} - known <= DECIDES_NOTHING


def test_how_a_teacher_is_asked_is_in_the_key_of_the_training(
    tmp_path: Path, installed: Callable[[str, str], None]
) -> None:
    taught = TrainFromScratch(teacher=next(SHIPPED.glob("*.gguf")).stem)
    before, untaught = (inputs_of("train", training, tmp_path) for training in (taught, TrainFromScratch()))
    installed("llama-cpp-python", "999.1")
    after, still_untaught = (inputs_of("train", training, tmp_path) for training in (taught, TrainFromScratch()))

    assert set(reached_from("models.encoder", "models.decoder")) - modules_in(before) == set()
    assert digest_of_inputs("train", before) != digest_of_inputs("train", after)
    assert digest_of_inputs("train", untaught) == digest_of_inputs("train", still_untaught)


class Recorded(Steps):
    """Tells what goes into the steps of a run, and has their records."""

    def __init__(self, folder: Path, **records: object) -> None:
        super().__init__(folder, lambda _: None)
        self._folder, self.keys = folder, dict[str, str]()
        for name, record in records.items():
            (folder / name).mkdir(exist_ok=True)
            (folder / name / "record.json").write_bytes(msgspec.json.encode(record))

    def run(self, name: str, inputs: Sequence[object], work: Work) -> Path:
        step = name.partition("-")[0]
        self.keys[step] = digest_of_inputs(name, inputs)
        if step == "measure":
            raise ReachedError
        return self._folder / step


def keys_of_a_run(folder: Path) -> dict[str, str]:
    """Return the keys of the steps by which a finished model is measured, by the first word of their names."""
    words = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota")
    rows = [
        {"text": f"{word} door {word}", "label": TASK.label_names[at // 3], "fold": FOLDS[at % 3]}
        for at, word in enumerate(words)
    ]
    (folder / "events.jsonl").write_bytes(b"\n".join(map(msgspec.json.encode, rows)))
    tiny_decoder(folder / "model.gguf", release=None)
    data = Data(kind="labelled", path="events.jsonl", licence="CC0", attribution="nobody", fewest_per_label=1)
    recipe = replace(FINISHED, task=str(TASK_FILE), data=data)
    records = {"label": Labels([0, 1]), "try": measured.trial("F16", 1.0, 0.0), "calibrate": RELEASE}
    steps = Recorded(folder, **records)
    with pytest.raises(ReachedError):
        run._made(recipe, folder, folder, steps, Progress())
    return steps.keys


def test_another_version_of_what_judges_judges_again(tmp_path: Path, installed: Callable[[str, str], None]) -> None:
    keys = [keys_of_a_run(tmp_path)]
    for package_ in ("scikit-learn", "scipy", "llama-cpp-python"):
        installed(package_, "999.1")
        keys.append(keys_of_a_run(tmp_path))

    for step in ("try", "calibrate", "measure"):
        assert len({of[step] for of in keys}) == len(keys)


def test_another_machine_measures_speed_and_memory_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = keys_of_a_run(tmp_path)
    monkeypatch.setattr(run, "machine", lambda: "a faster one, 64 threads")
    there = keys_of_a_run(tmp_path)

    assert {step for step, key in there.items() if key != here[step]} == {"try", "measure"}


@trainings
def test_another_version_of_what_trains_trains_again(
    training: Training, tmp_path: Path, installed: Callable[[str, str], None]
) -> None:
    keys = [digest_of_inputs("train", inputs_of("train", training, tmp_path))]
    for package_ in ("torch", "transformers"):
        installed(package_, "999.1")
        keys.append(digest_of_inputs("train", inputs_of("train", training, tmp_path)))

    assert len(set(keys)) == len(keys)


def test_a_version_is_told_and_of_what_is_not_installed_there_is_none(installed: Callable[[str, str], None]) -> None:
    installed("a-package", "1.2.3")

    assert versions_of("a-package", "no-such-package") == {"a-package": "1.2.3", "no-such-package": ""}


def test_what_is_converted_is_converted_again_for_other_events_to_check_it_by_and_another_llama_cpp(
    tmp_path: Path, installed: Callable[[str, str], None]
) -> None:
    def key(*tested: str) -> str:
        return digest_of_inputs("convert", inputs_of("convert", TrainNothing(), tmp_path, *tested))

    before = key("door 1 opened")
    assert key("door 1 opened") == before
    assert key("door 2 opened") != before

    installed("llama-cpp-python", "999.1")
    assert key("door 1 opened") != before


@trainings
def test_a_training_that_is_not_done_has_no_bar(training: Training, tmp_path: Path) -> None:
    progress = Progress()
    inputs_of("train", training, tmp_path, progress=progress)

    assert progress._bars.tasks == []


def test_a_teacher_is_a_file_below_the_root_or_a_shipped_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    teacher = tmp_path / "teachers" / "teacher.gguf"
    teacher.parent.mkdir()
    teacher.write_bytes(b"a model")
    shipped = next(SHIPPED.glob("*.gguf"))

    for named, path in (("teachers/teacher.gguf", teacher), (str(teacher), teacher), (shipped.stem, shipped)):
        assert path in inputs_of("train", TrainFromScratch(teacher=named), tmp_path)
    with pytest.raises(ConfigError, match=rf"{tmp_path}/none\.gguf`: no such file"):
        inputs_of("train", TrainFromScratch(teacher="none.gguf"), tmp_path)
