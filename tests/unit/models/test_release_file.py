"""Which file a release is, whether it is the right one, and what it carries."""

import hashlib
from pathlib import Path

import msgspec
import pytest

from models.contracts.errors import ConfigError, UnavailableError, UntrustedError
from models.contracts.policy import Policy
from models.contracts.release import Calibration, Golden, Prompt, Release
from models.llama import Model
from models.opening import open_classifier
from models.release_file import check_digest, digest_of, read_release, release_path
from tests.fakes.tiny_models import RELEASE, TASK, tiny_decoder

TASK_FILE = """
name = "routing"
instruction = "Route the ticket."
default_label = "other"
[[labels]]
name = "billing"
description = "about money"
[[labels]]
name = "other"
description = "the rest"
"""


def test_a_model_carries_its_release_whole(decoder_file: Path) -> None:
    with Model(decoder_file, vocabulary_only=True) as model:
        assert read_release(model) == RELEASE


def test_a_model_that_does_not_exist_is_named_with_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"model `no-such`: no such file, and no shipped release.*give the path"):
        release_path("no-such")


def test_another_file_than_was_promised_is_refused_with_both_digests(decoder_file: Path) -> None:
    found = hashlib.sha256(decoder_file.read_bytes()).hexdigest()

    assert digest_of(decoder_file) == found
    check_digest(decoder_file, found.upper())
    with pytest.raises(
        UntrustedError, match=f"tiny.gguf: hashes to {found}, the configuration wants {'a' * 64}"
    ) as said:
        open_classifier(decoder_file, sha256="a" * 64)
    assert str(said.value).endswith(
        f'refused it: after an upgrade, or with another `release`, set `sha256 = "{found}"` beside that, '
        "else somebody changed the file"
    )


def test_a_damaged_file_is_called_so_and_no_digest_of_it_is_advised(decoder_file: Path, tmp_path: Path) -> None:
    content = bytearray(decoder_file.read_bytes())
    wanted = digest_of(decoder_file)
    content[len(content) // 2] ^= 1
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(content)

    with pytest.raises(UntrustedError) as said:
        check_digest(damaged, wanted)
    assert "it was changed or damaged after it was made; refused it: fetch it again" in str(said.value)
    assert "`sha256" not in str(said.value)


def test_a_folder_is_no_model_and_called_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"model `{tmp_path}`: is a folder; give the path of a GGUF in it"):
        release_path(tmp_path)


def test_a_folder_has_no_digest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        digest_of(tmp_path)


def test_an_instruct_model_and_a_task_file_are_a_release(instruct_file: Path, tmp_path: Path) -> None:
    task = tmp_path / "routing.toml"
    task.write_text(TASK_FILE)
    with Model(instruct_file) as model:
        release = read_release(model, str(task))

    assert (release.title, release.prompt.kind, release.task.label_names) == ("routing-1", "chat", ("billing", "other"))


def test_an_instruct_model_without_a_task_file_is_refused_with_what_to_set(instruct_file: Path) -> None:
    with pytest.raises(ConfigError, match=r"carries no release.*set `task`"):
        open_classifier(instruct_file)


def test_a_task_file_for_a_model_that_carries_a_release_is_refused_and_not_ignored(
    decoder_file: Path, tmp_path: Path
) -> None:
    task = tmp_path / "routing.toml"
    task.write_text(TASK_FILE)

    with pytest.raises(ConfigError, match=r"tiny\.gguf: carries a release .* `task` is set to .*routing\.toml; unset"):
        open_classifier(decoder_file, task=str(task))


def test_a_model_is_closed_whatever_stops_its_opening(decoder_file: Path) -> None:
    with pytest.raises(TypeError) as caught:
        open_classifier(decoder_file, context_tokens="1024")  # type: ignore[arg-type] # an error that nobody foresaw
    (model,) = (frame.frame.f_locals["model"] for frame in caught.traceback if frame.name == "open_classifier")

    with pytest.raises(UnavailableError, match="the model is closed"):
        model.must_be_open()


@pytest.mark.parametrize("content", ["name = 3", "nonsense", ""])
def test_a_task_file_that_is_wrong_is_named(instruct_file: Path, tmp_path: Path, content: str) -> None:
    task = tmp_path / "wrong.toml"
    task.write_text(content)
    with pytest.raises(ConfigError, match=r"wrong\.toml"):
        open_classifier(instruct_file, task=str(task))
    with pytest.raises(ConfigError, match=r"absent\.toml"):
        open_classifier(instruct_file, task=str(tmp_path / "absent.toml"))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"calibration": Calibration(temperature=0.0)}, "temperature 0"),
        ({"calibration": Calibration(temperature=-1.0)}, "temperature -1"),
        ({"calibration": Calibration(bias=(0.0, 1.0))}, "2 calibration biases for 3 labels"),
        ({"golden": (Golden(text="x", label="fine", confidence=0.9),)}, "golden event for `fine`"),
        ({"policy": Policy(accept_at_by_label={"fine": 0.9})}, "threshold for `fine`"),
    ],
)
def test_a_release_whose_parts_do_not_fit_is_refused(changes: dict[str, object], reason: str, tmp_path: Path) -> None:
    path = tiny_decoder(tmp_path / "odd.gguf", msgspec.structs.replace(RELEASE, **changes))

    with pytest.raises(UntrustedError, match=reason):
        open_classifier(path)


def test_a_release_of_a_newer_version_is_refused_with_both_versions(decoder_file: Path, tmp_path: Path) -> None:
    newer = tmp_path / "newer.gguf"
    newer.write_bytes(decoder_file.read_bytes().replace(b'"release/1"', b'"release/9"'))

    with pytest.raises(UntrustedError, match=r"newer\.gguf.*`release/9`, this Headwater reads `release/1`.*upgrade"):
        open_classifier(newer)


def test_labels_that_the_vocabulary_cannot_tell_apart_are_refused_at_start(tmp_path: Path) -> None:
    labels = (*TASK.labels, type(TASK.labels[0])("critical-2", "worse"))
    release = msgspec.structs.replace(RELEASE, task=msgspec.structs.replace(TASK, labels=labels))

    with pytest.raises(UntrustedError, match="`critical` is how label `critical-2` begins"):
        open_classifier(tiny_decoder(tmp_path / "odd.gguf", release))


def test_an_instruction_that_leaves_no_room_for_an_event_is_refused_with_the_figures(tmp_path: Path) -> None:
    release = Release(name="long", number=1, task=TASK, prompt=Prompt(kind="plain", before="word " * 100, after="\n"))

    with pytest.raises(ConfigError, match="raise `context_tokens` by"):
        open_classifier(tiny_decoder(tmp_path / "long.gguf", release), context_tokens=512)
