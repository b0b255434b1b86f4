import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from models.contracts.errors import InputError
from models.contracts.release import Prompt, SecondOpinion
from models.llama import Model
from models.release_file import digest_of, read_release
from quantize.examples import Examples, HeldOut
from quantize.expand import Example
from quantize.figures import Figures
from quantize.recipe import Recipe
from quantize.run import _published, _second_opinion
from tests.fakes import measured
from tests.fakes.tiny_models import RELEASE, TASK, tiny_encoder


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return tiny_encoder(tmp_path / "small.gguf", carries_release=False)


def published(small: Path, releases: Path, recipe: Recipe, **changes: object) -> Path:
    return _published(recipe, measured.release(**changes), measured.figures(), (), small=small, releases=releases)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@contextmanager
def files_of_at_most(limit_bytes: int) -> Iterator[None]:
    """Refuse longer files to this process, as a file system of its own size does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal_before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, signal_before)


def test_a_release_lies_beside_its_figures_its_card_and_its_report(small: Path, tmp_path: Path) -> None:
    path = published(small, tmp_path / "releases", measured.recipe())

    assert set(contents(path.parent)) == {f"triage-3.{kind}" for kind in ("gguf", "json", "md", "html")}
    with Model(path, vocabulary_only=True) as model:
        assert read_release(model) == measured.release()
    assert digest_of(path) in path.with_suffix(".md").read_text(encoding="utf-8")
    assert msgspec.json.decode(path.with_suffix(".json").read_bytes(), type=Figures) == measured.figures()


def test_what_cannot_be_written_whole_leaves_the_release_of_before_with_its_pages(small: Path, tmp_path: Path) -> None:
    path = published(small, tmp_path / "releases", measured.recipe())
    before = contents(path.parent)
    room = path.stat().st_size + 100_000
    other = measured.recipe(summary="Sorts events. " * (room // 10))

    with files_of_at_most(room), pytest.raises(InputError, match=f"{path}: cannot be written: "):
        published(small, path.parent, other, provenance={"data_sha256": "e" * 64})

    assert contents(path.parent) == before


def test_what_a_killed_run_left_is_in_nobodys_way(small: Path, tmp_path: Path) -> None:
    left = tmp_path / "releases" / "triage-3.unfinished"
    left.mkdir(parents=True)
    (left / "triage-3.gguf").write_bytes(b"half")

    assert set(contents(published(small, left.parent, measured.recipe()).parent)) == {
        f"triage-3.{kind}" for kind in ("gguf", "json", "md", "html")
    }


def held_out(events: int, digest: str = "of the data") -> Examples:
    """Examples of which only what was held out counts."""
    fold = HeldOut([Example(f"event {at}", "benign", "any", {}) for at in range(events)], np.arange(events))
    return Examples(lambda _: [], fold, fold, foreign=[], foreign_test=[], digest=digest, types=[])


@pytest.fixture
def second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shipped release that held out nine events."""
    monkeypatch.setattr("models.release_file.SHIPPED", tmp_path)
    release = replace(RELEASE, name="second", number=7, prompt=Prompt(kind="encoder"))
    told = {
        "held_out_sha256": held_out(9).test.digest,
        "data_sha256": "of the data",
        "recipe": msgspec.json.encode(measured.recipe()).decode(),
    }
    return tiny_encoder(tmp_path / "second.gguf", release=replace(release, provenance=told))


def test_a_second_opinion_is_that_of_the_file_that_is_shipped_now(second: Path) -> None:
    asked = measured.recipe(second_opinion="second")

    assert _second_opinion(asked, TASK, held_out(9)) == SecondOpinion(release="second-7", sha256=digest_of(second))
    assert _second_opinion(measured.recipe(), TASK, held_out(9)) is None


@pytest.mark.usefixtures("second")
@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, held_out(8)),
        ({}, held_out(9, "of other data")),
        ({"data": replace(measured.recipe().data, calibration=0.3)}, held_out(9)),
    ],
    ids=["other events are measured", "other data", "more events calibrate"],
)
def test_a_second_opinion_that_may_have_learnt_from_the_events_is_refused(
    changes: dict[str, Any], found: Examples
) -> None:
    with pytest.raises(InputError, match="`second_opinion` is second-7, which may have held out other events"):
        _second_opinion(measured.recipe(second_opinion="second", **changes), TASK, found)


@pytest.mark.usefixtures("second")
def test_a_second_opinion_on_labels_in_another_order_is_refused() -> None:
    turned = replace(TASK, labels=TASK.labels[::-1])

    with pytest.raises(InputError, match="in order: "):
        _second_opinion(measured.recipe(second_opinion="second"), turned, held_out(9))
