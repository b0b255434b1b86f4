"""Every file that is shipped is the release that its name, its card, its recipe and its task file say."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from models.contracts.release import Release
from models.contracts.task import Task
from models.contracts.wire import decode_toml
from models.llama import Model
from models.opening import open_classifier
from models.release_file import SHIPPED, digest_of, read_release, release_path
from quantize.recipe import read_recipe

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module", params=sorted(SHIPPED.glob("*.gguf")), ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    shipped: Path = request.param
    return shipped


@pytest.fixture(scope="module")
def release(path: Path) -> Release:
    with Model(path, vocabulary_only=True) as model:
        return read_release(model)


@pytest.fixture(scope="module")
def decoder() -> Iterator[Model]:
    with Model(release_path("soc-triage-small")) as opened:
        yield opened


def test_it_is_no_larger_than_its_recipe_allows(path: Path) -> None:
    recipe = read_recipe(ROOT / f"recipes/{path.stem}.toml")

    assert path.stat().st_size <= recipe.quantization.max_megabytes * 1_000_000


def test_it_has_the_name_of_its_file_and_a_recipe_of_that_name(path: Path, release: Release) -> None:
    assert release.name == path.stem
    assert (ROOT / f"recipes/{release.name}.toml").is_file()


def test_it_answers_the_task_that_lies_beside_it(release: Release) -> None:
    text = (ROOT / f"models/tasks/{release.task.name}.toml").read_text(encoding="utf-8")

    assert release.task == decode_toml(text, Task, f"{release.task.name}.toml")


def test_its_card_is_about_this_very_file(path: Path, release: Release) -> None:
    page = (ROOT / f"docs/releases/{release.title}.md").read_text(encoding="utf-8")

    assert page.startswith(f"# {release.title}\n")
    assert digest_of(path) in page


def test_its_golden_events_are_answered_as_promised(path: Path, release: Release) -> None:
    with closing(open_classifier(path, threads=1)) as classifier:
        opinions = classifier.classify([golden.text for golden in release.golden])
    names = release.task.label_names
    given = [names[max(range(len(names)), key=opinion.probabilities.__getitem__)] for opinion in opinions]
    gaps = [
        abs(max(opinion.probabilities) - golden.confidence)
        for opinion, golden in zip(opinions, release.golden, strict=True)
    ]

    assert len({golden.label for golden in release.golden}) > len(names) / 2
    assert given == [golden.label for golden in release.golden]
    assert max(gaps) < 0.02  # a batch's shape moves a probability by up to a hundredth


def test_every_label_of_the_decoder_is_one_token(decoder: Model) -> None:
    names = read_release(decoder).task.label_names
    spellings = {name: decoder.vocabulary.encode(f" {name}") for name in names}

    assert {name: len(tokens) for name, tokens in spellings.items()} == dict.fromkeys(names, 1)


def test_a_control_token_in_an_event_is_plain_text_to_the_decoder(decoder: Model) -> None:
    assert decoder.vocabulary.size - 1 not in decoder.vocabulary.encode(" <|endoftext|>")
