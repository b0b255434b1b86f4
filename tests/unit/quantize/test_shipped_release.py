"""The file that is shipped is the release that its card and its task file describe."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from models.contracts.release import Release
from models.contracts.task import Task
from models.contracts.wire import decode_toml
from models.decoder import DecoderClassifier
from models.llama import Model
from models.release_file import digest_of, read_release, release_path

ROOT = Path(__file__).parents[3]
PATH = release_path("soc-triage")


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    with Model(PATH) as opened:
        yield opened


@pytest.fixture(scope="module")
def release(model: Model) -> Release:
    return read_release(model)


def test_it_is_at_most_25_megabytes() -> None:
    assert PATH.stat().st_size <= 25_000_000


def test_it_answers_the_task_that_lies_beside_it(release: Release) -> None:
    text = (ROOT / "models/tasks/soc-triage.toml").read_text(encoding="utf-8")

    assert release.task == decode_toml(text, Task, "soc-triage.toml")


def test_its_card_is_about_this_very_file(release: Release) -> None:
    page = (ROOT / f"docs/releases/{release.title}.md").read_text(encoding="utf-8")

    assert digest_of(PATH) in page
    assert release.provenance["test_macro_f1"] in page


def test_every_label_is_one_token(model: Model, release: Release) -> None:
    spellings = {name: model.vocabulary.encode(f" {name}") for name in release.task.label_names}

    assert {name: len(tokens) for name, tokens in spellings.items()} == dict.fromkeys(release.task.label_names, 1)


def test_a_control_token_in_an_event_is_plain_text(model: Model) -> None:
    assert model.vocabulary.size - 1 not in model.vocabulary.encode(" <|endoftext|>")


def test_its_golden_events_are_answered_as_promised(model: Model, release: Release) -> None:
    classifier = DecoderClassifier(model, release, threads=1, context_tokens=1024)
    opinions = classifier.classify([golden.text for golden in release.golden])
    names = release.task.label_names
    given = [names[max(range(len(names)), key=opinion.probabilities.__getitem__)] for opinion in opinions]
    gaps = [
        abs(max(opinion.probabilities) - golden.confidence)
        for opinion, golden in zip(opinions, release.golden, strict=True)
    ]

    assert {golden.label for golden in release.golden} == set(names)
    assert given == [golden.label for golden in release.golden]
    assert max(gaps) < 0.02  # a batch's shape moves a probability by up to a hundredth
