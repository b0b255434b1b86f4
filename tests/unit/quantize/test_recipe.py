from pathlib import Path
from typing import Any

import pytest

from models.contracts.errors import ConfigError
from quantize.recipe import (
    QUANTIZATIONS,
    Candidate,
    TrainDecoder,
    TrainEncoder,
    TrainFromScratch,
    TrainNothing,
    read_recipe,
    read_task,
)

ROOT = Path(__file__).parents[3]
RECIPES = sorted((ROOT / "recipes").glob("*.toml"))
DIGEST = "0123456789abcdef" * 4

every_recipe = pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)


def written(folder: Path, top: dict[str, Any] | None = None, **changes: dict[str, Any] | None) -> Path:
    """A recipe for an encoder; `changes` are keys of its sections, and None takes a section away.

    `top` are keys of none.
    """
    sections: dict[str, dict[str, Any]] = {
        "data": {"kind": "labelled", "path": "events.jsonl", "licence": "CC0", "attribution": "nobody"},
        "base": {"kind": "encoder", "path": "checkpoint"},
        "training": {"method": "encoder"},
    }
    lines = ['name = "triage"', "number = 1", 'task = "task.toml"', *(_pair(*pair) for pair in (top or {}).items())]
    for name in dict.fromkeys((*sections, *changes)):
        if name in changes and changes[name] is None:
            continue
        lines += ["", f"[{name}]"]
        pairs = sections.get(name, {}) | (changes.get(name) or {})
        lines += [_pair(key, value) for key, value in pairs.items() if value is not None]
    path = folder / "recipe.toml"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def _pair(key: str, value: Any) -> str:
    return f"{key} = {_as_toml(value)}"


def _as_toml(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value).lower()


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as refused:
        read_recipe(path)
    said = str(refused.value)
    assert said.startswith(f"{path}: ")
    return said.removeprefix(f"{path}: ")


def test_there_are_recipes() -> None:
    assert RECIPES


@every_recipe
def test_every_recipe_reads_and_what_it_names_is_there(path: Path) -> None:
    recipe = read_recipe(path)
    task = read_task(ROOT / recipe.task)

    named = (recipe.data.path, recipe.data.foreign, recipe.data.quiet)
    assert [name for name in named if name and not (ROOT / name).exists()] == []
    assert recipe.name == path.stem
    assert not recipe.severity or sorted(recipe.severity) == sorted(task.label_names)


@every_recipe
def test_a_key_that_nobody_knows_is_refused_in_every_recipe(path: Path, tmp_path: Path) -> None:
    changed = tmp_path / path.name
    changed.write_text(f'colour = "red"\n{path.read_text(encoding="utf-8")}', encoding="utf-8")

    assert "`colour`" in refusal(changed)


def test_what_is_left_out_has_a_default(tmp_path: Path) -> None:
    recipe = read_recipe(written(tmp_path, training=None))

    assert recipe.training == TrainNothing()
    assert recipe.quantization.candidates
    assert (recipe.data.test, recipe.data.calibration) == (0.2, 0.13)


@pytest.mark.parametrize(
    ("section", "wrong", "wanted"),
    [("data", "pth", "path"), ("base", "pakage", "package"), ("training", "epoch", "epochs"), ("gate", "x", "")],
)
def test_an_unknown_key_is_refused_with_its_section_and_the_nearest_known(
    tmp_path: Path, section: str, wrong: str, wanted: str
) -> None:
    said = refusal(written(tmp_path, **{section: {wrong: "1"}}))

    assert f"unknown field `{wrong}` - at `$.{section}`" in said
    assert f"wanted perhaps `{wanted}`" in said if wanted else "wanted one of `max_calibration_error`" in said


TRAINS = {
    "none": (TrainFromScratch, "scratch"),
    "encoder": (TrainEncoder, "encoder"),
    "decoder": (TrainDecoder, "decoder"),
    "gguf": (TrainNothing, "none"),
}
GO_TOGETHER = {(kind, method) for kind, (_, method) in TRAINS.items()} | {("encoder", "none"), ("decoder", "none")}


def of_kind(kind: str, method: str, folder: Path) -> Path:
    data = {"kind": "event-types"} if kind == "none" else {}
    base = {"kind": kind, "path": None if kind == "none" else "model"}
    return written(folder, data=data, base=base, training={"method": method})


@pytest.mark.parametrize(("kind", "method"), sorted(GO_TOGETHER))
def test_a_base_and_the_method_for_it_go_together(tmp_path: Path, kind: str, method: str) -> None:
    recipe = read_recipe(of_kind(kind, method, tmp_path))

    assert recipe.base.kind == kind
    assert type(recipe.training) is (TrainNothing if method == "none" else TRAINS[kind][0])


@pytest.mark.parametrize(
    ("kind", "method"),
    sorted({(kind, method) for kind in TRAINS for _, method in TRAINS.values()} - GO_TOGETHER),
)
def test_a_base_and_a_method_for_another_are_refused_with_what_goes_together(
    tmp_path: Path, kind: str, method: str
) -> None:
    assert refusal(of_kind(kind, method, tmp_path)) == (
        f'`training.method` is "{method}" and `base.kind` "{kind}"; scratch goes with none, encoder with encoder, '
        "decoder with decoder, and none with what is trained already"
    )


def test_a_method_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    assert "wanted perhaps `encoder`" in refusal(written(tmp_path, training={"method": "encode"}))


@pytest.mark.parametrize("kind", ["encoder", "decoder", "gguf"])
def test_a_base_without_a_path_is_refused(tmp_path: Path, kind: str) -> None:
    method = TRAINS[kind][1]

    assert (
        refusal(written(tmp_path, base={"kind": kind, "path": None}, training={"method": method}))
        == f'`base.path` is wanted where `base.kind` is "{kind}"'
    )


def test_a_path_to_nothing_that_is_read_is_refused(tmp_path: Path) -> None:
    path = written(
        tmp_path, data={"kind": "event-types"}, base={"kind": "none", "path": "x"}, training={"method": "scratch"}
    )

    assert refusal(path) == '`base.path` is set although `base.kind` is "none"'


def test_a_package_without_its_digest_is_refused(tmp_path: Path) -> None:
    assert (
        refusal(written(tmp_path, base={"package": "an-encoder==1.0"}))
        == "`base.package` wants `base.sha256`, the digest of the wheel"
    )
    assert read_recipe(written(tmp_path, base={"package": "an-encoder==1.0", "sha256": DIGEST})).base.sha256 == DIGEST


def test_a_digest_that_nothing_would_be_compared_with_is_refused(tmp_path: Path) -> None:
    assert refusal(written(tmp_path, base={"sha256": DIGEST})) == (
        "`base.sha256` is the digest of a wheel or a jar, and there is no `base.package` and no `base.maven`; leave it "
        "out"
    )


JAR = {"maven": "an.org:an-encoder:1.0", "path": "encoder.onnx", "sha256": DIGEST}


def test_a_graph_in_a_jar_is_a_base_for_an_encoder(tmp_path: Path) -> None:
    assert read_recipe(written(tmp_path, base=JAR)).base.maven == "an.org:an-encoder:1.0"


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"kind": "decoder"}, '`base.kind` "decoder" and `base.path` "encoder.onnx"'),
        ({"path": "model"}, '`base.kind` "encoder" and `base.path` "model"'),
        (
            {"package": "an-encoder==1.0"},
            '`base.kind` "encoder" and `base.path` "encoder.onnx" and `base.package` "an-encoder==1.0"',
        ),
    ],
)
def test_a_jar_goes_with_a_graph_of_an_encoder_and_with_nothing_else(
    tmp_path: Path, change: dict[str, str], found: str
) -> None:
    training = {"method": change.get("kind", "encoder")}

    assert refusal(written(tmp_path, base=JAR | change, training=training)) == (
        '`base.maven` goes with `base.kind` "encoder", a `base.path` that ends in .onnx and no `base.package`; '
        f"found {found}"
    )


def test_a_jar_without_its_digest_is_refused(tmp_path: Path) -> None:
    said = refusal(written(tmp_path, base=JAR | {"sha256": None}))

    assert said == "`base.maven` wants `base.sha256`, the digest of the jar"


@pytest.mark.parametrize("artifact", ["an-encoder", "an.org:an-encoder", "an.org:an-encoder:1.0:jar", "a:b: c"])
def test_an_artifact_that_is_not_named_whole_is_refused(tmp_path: Path, artifact: str) -> None:
    assert (
        refusal(written(tmp_path, base=JAR | {"maven": artifact}))
        == f'`base.maven` is "{artifact}"; `group:artifact:version` wanted'
    )


def test_a_second_opinion_is_asked_by_an_encoder(tmp_path: Path) -> None:
    path = written(tmp_path, {"second_opinion": "soc-triage"}, gate={"min_gain_over_second_opinion": 0.0})

    assert read_recipe(path).second_opinion == "soc-triage"


@pytest.mark.parametrize(
    ("name", "sections"),
    [("triage", {}), ("soc-triage", {"base": {"kind": "decoder"}, "training": {"method": "decoder"}})],
    ids=["itself", "of a decoder"],
)
def test_a_second_opinion_of_itself_or_for_a_decoder_is_refused(
    tmp_path: Path, name: str, sections: dict[str, Any]
) -> None:
    said = refusal(written(tmp_path, {"second_opinion": name}, **sections))

    assert said.endswith("only an encoder asks for one, and another release than itself")


def test_a_gain_over_nobody_is_refused(tmp_path: Path) -> None:
    said = refusal(written(tmp_path, gate={"min_gain_over_second_opinion": 0.0}))

    assert said == (
        "`gate.min_gain_over_second_opinion` is set, and no `second_opinion`; name a shipped release there, or leave "
        "it out"
    )


def test_embeddings_that_are_to_be_trained_below_frozen_layers_are_refused(tmp_path: Path) -> None:
    assert refusal(written(tmp_path, training={"frozen_layers": 2, "train_embeddings": True})) == (
        "`training.frozen_layers` is 2, which leaves the embeddings below them as they are, and "
        "`training.train_embeddings` is set; leave one of them out"
    )


def test_plain_operation_beside_labelled_events_is_refused(tmp_path: Path) -> None:
    assert refusal(written(tmp_path, data={"quiet": "quantize/corpora/quiet"})) == (
        '`data.quiet` is event types, and `data.kind` is "labelled"; label such events and put them among the others'
    )


@pytest.mark.parametrize("package", ["an-encoder", "an-encoder>=1.0", "an-encoder==", "an-encoder==1.0 other"])
def test_a_package_without_its_version_is_refused(tmp_path: Path, package: str) -> None:
    assert (
        refusal(written(tmp_path, base={"package": package, "sha256": DIGEST}))
        == f'`base.package` is "{package}"; `name==version` wanted'
    )


def test_more_epochs_with_rounded_weights_than_there_are_are_refused(tmp_path: Path) -> None:
    assert refusal(written(tmp_path, training={"epochs": 40, "rounded_epochs": 80})) == (
        "`training.rounded_epochs` is 80, and `training.epochs`, of which they are the last, 40"
    )
    read_recipe(written(tmp_path, training={"epochs": 40, "rounded_epochs": 40}))


def test_a_candidate_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path)
    recipe = path.read_text(encoding="utf-8")
    twice = '[quantization]\ncandidates = [{ type = "Q4_0" }, { type = "Q8_0" }, { type = "Q4_0" }]\n'
    path.write_text(f"{recipe}\n{twice}", encoding="utf-8")

    assert refusal(path) == "`quantization.candidates` has Q4_0 more than once"


def test_a_byte_order_mark_is_no_part_of_a_recipe(tmp_path: Path) -> None:
    path = written(tmp_path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())

    assert read_recipe(path).name == "triage"


def test_a_recipe_that_is_not_there_is_named_once(tmp_path: Path) -> None:
    assert refusal(tmp_path / "gone.toml") == "cannot be read: No such file or directory"


@pytest.mark.parametrize("digest", [None, DIGEST])
def test_a_finished_model_in_a_package_is_refused_when_the_recipe_is_read(tmp_path: Path, digest: str | None) -> None:
    base = {"kind": "gguf", "path": "model.gguf", "package": "a-model==1.0", "sha256": digest}

    assert refusal(written(tmp_path, base=base, training=None)) == (
        '`base.package` is set although `base.kind` is "gguf"; a wheel holds a folder to train from, and a finished '
        "model is a file of your own, at `base.path`"
    )


@pytest.mark.parametrize("digest", ["abc", DIGEST.upper(), DIGEST + "0"])
def test_a_digest_that_is_none_is_refused(tmp_path: Path, digest: str) -> None:
    assert "`$.base.sha256`" in refusal(written(tmp_path, base={"package": "an-encoder==1.0", "sha256": digest}))


def test_labelled_events_are_nothing_to_train_from_scratch_on(tmp_path: Path) -> None:
    path = written(tmp_path, base={"kind": "none", "path": None}, training={"method": "scratch"})

    assert refusal(path) == '`base.kind` "none" trains from event types only; `data.kind` is "labelled"'


@pytest.mark.parametrize("name", ["test", "calibration"])
@pytest.mark.parametrize("share", [0, 0.0, -0.1, 0.5, 0.9, 1.5])
def test_a_share_that_leaves_nothing_is_refused_with_its_place(tmp_path: Path, name: str, share: float) -> None:
    assert f"`$.data.{name}`" in refusal(written(tmp_path, data={name: share}))


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("training", "epochs", 0),
        ("training", "rate", 0.0),
        ("training", "dropout", 1.0),
        ("training", "max_tokens", 8),
        ("training", "wording", "words-9"),
        ("gate", "max_label_flips", 1.1),
        ("quantization", "max_megabytes", 0),
        ("data", "kind", "labeled"),
        ("base", "kind", "onnx"),
    ],
)
def test_a_value_out_of_range_is_refused_with_its_place(tmp_path: Path, section: str, key: str, value: Any) -> None:
    assert f"`$.{section}.{key}`" in refusal(written(tmp_path, **{section: {key: value}}))


def test_a_quantization_that_llama_cpp_does_not_know_by_that_name_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path)
    for kind in (*QUANTIZATIONS, "Q3_K"):
        given = f'\n[quantization]\ncandidates = [{{ type = "{kind}" }}]\n'
        path.write_text(written(tmp_path).read_text(encoding="utf-8") + given, encoding="utf-8")
        if kind == "Q3_K":
            assert "`$.quantization.candidates[0].type`" in refusal(path)
        else:
            assert read_recipe(path).quantization.candidates == (Candidate(type=kind),)  # type: ignore[arg-type]


def test_no_candidates_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path)
    path.write_text(f"{path.read_text(encoding='utf-8')}\n[quantization]\ncandidates = []\n", encoding="utf-8")

    assert "`$.quantization.candidates`" in refusal(path)


def test_a_candidate_is_called_after_all_its_types() -> None:
    assert Candidate(type="IQ4_NL", embedding="Q8_0", output="Q6_K").title == "IQ4_NL, embedding Q8_0, output Q6_K"
    assert Candidate(type="Q4_K_M").title == "Q4_K_M"


@pytest.mark.parametrize("content", [None, b"name = \xff", b"name = "], ids=["missing", "no UTF-8", "no TOML"])
@pytest.mark.parametrize("read", [read_recipe, read_task])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, read: Any, content: bytes | None) -> None:
    path = tmp_path / "a.toml"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(ConfigError) as refused:
        read(path)

    assert str(refused.value).startswith(f"{path}: ")
