from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from models.contracts.release import Prompt, Release, SecondOpinion
from models.llama import Model
from models.release_file import SHIPPED, digest_of, read_release
from quantize import ask, evaluate
from quantize.ask import Answers
from quantize.evaluate import (
    _calibration_error,
    _gain,
    _golden,
    _label_flips,
    _older,
    _resident_alone,
    _with_known_fields,
    calibrated,
)
from quantize.event_types import EventType
from quantize.examples import Examples, HeldOut
from quantize.expand import Example
from quantize.measure import Estimate
from quantize.progress import Progress
from quantize.recipe import Base, TrainNothing
from tests.fakes import measured
from tests.fakes.tiny_models import RELEASE, TASK, tiny_decoder, tiny_encoder

BODIES = [f"Failed password for user{at} from 192.0.2.{at}" for at in range(12)]
TEST = [Example(body, TASK.label_names[at % 3], f"product {at}", {}) for at, body in enumerate(BODIES)]


def examples(test: list[Example], digest: str = "", types: list[EventType] | None = None) -> Examples:
    """Examples of which only the test counts."""
    held_out = HeldOut(test, np.arange(len(test)))
    return Examples(lambda _: [], held_out, held_out, foreign=[], foreign_test=[], digest=digest, types=types or [])


@pytest.mark.parametrize(("kinds", "expected"), [(3, 9), (30, 60), (60, 60), (77, 60), (150, 60)])
def test_there_are_at_most_sixty_golden_events_of_labels_from_all_over_the_task(kinds: int, expected: int) -> None:
    labels = np.repeat(np.arange(kinds), 4)
    names = [f"label {at}" for at in range(kinds)]
    said = np.full((len(labels), kinds), 0.1 / kinds)
    said[np.arange(len(labels)), labels] = 0.9
    found = [Example(f"event {at}", names[label], f"product {at}", {}) for at, label in enumerate(labels)]

    golden = _golden(found, Answers(said, np.ones(len(labels)), [{}] * len(labels)), labels, names)

    assert len(golden) == expected
    assert len({one.text for one in golden}) == expected
    of = sorted({names.index(one.label) for one in golden})
    assert of[0] == 0
    assert of[-1] >= kinds - 3
    assert max(np.diff(of)) <= -(-kinds // 60)


@pytest.mark.parametrize("data", ["event-types", "labelled"])
def test_fields_are_scored_where_the_label_is_right_and_the_fields_are_known(data: str) -> None:
    with_a_source = {"source": ("192.0.2.1",)}
    test = [
        Example("a", "critical", "p", with_a_source),
        Example("b", "critical", "p", {}),  # of an event type: it wants no value; labelled: nobody said
        Example("c", "benign", "p", {}),  # its label has no fields
        Example("d", "suspicious", "p", with_a_source),  # its label is wrong
    ]
    types = [EventType("p", "f", "text", "critical", ("a",))] if data == "event-types" else []
    chosen = np.array([2, 2, 0, 0])

    assert _with_known_fields(examples(test, types=types), TASK, chosen) == ([0, 1] if types else [0])


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which a release of the name `tiny`, number 3, is shipped; it was made from the data `aa`."""
    tiny_decoder(tmp_path / "tiny.gguf", replace(RELEASE, provenance={"data_sha256": "aa"}))
    monkeypatch.setattr(evaluate, "SHIPPED", tmp_path)
    return tmp_path


def names_of_older(release: Release, digest: str) -> list[str]:
    with Progress() as progress:
        return [peer.name for peer in _older(release, examples(TEST, digest), progress)]


@pytest.mark.usefixtures("shipped")
def test_the_release_before_is_a_peer_and_one_from_other_data_may_know_the_events() -> None:
    newer = replace(RELEASE, number=4)

    assert names_of_older(newer, "aa") == ["tiny-3"]
    assert names_of_older(newer, "bb") == ["tiny-3, which may have learnt from some of these events"]


def test_a_release_that_says_what_it_held_out_is_known_by_that_whatever_its_data_hash_to(shipped: Path) -> None:
    def named(held_out: str) -> list[str]:
        told = {"data_sha256": "aa", "held_out_sha256": held_out}
        tiny_decoder(shipped / "tiny.gguf", replace(RELEASE, provenance=told))
        return names_of_older(replace(RELEASE, number=4), "aa" if held_out == "cc" else "bb")

    assert named(examples(TEST).test.digest) == ["tiny-3"]
    assert named("cc") == ["tiny-3, which may have learnt from some of these events"]


@pytest.mark.usefixtures("shipped")
@pytest.mark.parametrize("number", [2, 3])
def test_a_release_is_no_peer_of_itself_and_no_newer_one_is(number: int) -> None:
    assert names_of_older(replace(RELEASE, number=number), "aa") == []


def test_a_model_that_came_finished_is_not_compared_with_itself(tmp_path: Path) -> None:
    answers = Answers(np.eye(3), np.ones(3), [{}] * 3)
    finished = measured.recipe(base=Base(kind="gguf", path="model.gguf"), training=TrainNothing())

    with Progress() as progress:
        flips = _label_flips(finished, RELEASE, tmp_path / "none.gguf", answers, bodies=BODIES[:3], progress=progress)
    assert flips is None


def test_a_gain_over_the_second_opinion_is_as_uncertain_as_vendors_are_few() -> None:
    labels = np.zeros(600, np.int64)
    test = [Example(f"event {at}", TASK.label_names[0], f"Vendor{at % 6} product", {}) for at in range(600)]
    found = examples(test, types=[EventType("p", "f", "text", "benign", ("a",))])
    second = np.where(np.arange(600) % 6 == 0, 1, 0)  # it knows nothing of one vendor

    over_vendors = _gain(labels, second, labels, found)
    over_events = _gain(labels, second, labels, replace(found, types=[]))

    assert over_vendors.value == over_events.value == pytest.approx(1 / 6)
    assert over_vendors.low == 0.0 < over_events.low


def test_what_a_second_opinion_knows_has_its_weight_in_the_calibration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = replace(RELEASE, prompt=Prompt(kind="encoder"))
    own = tiny_encoder(tmp_path / "own.gguf", release=encoder)
    second = tiny_encoder(tmp_path / "knows.gguf", release=replace(encoder, name="knows", number=1), seed=3)
    monkeypatch.setattr(evaluate, "SHIPPED", tmp_path)
    bodies = [f"Failed password for user{at} from 192.0.2.{at % 250}" for at in range(120)]
    truth = ask.ask(second, replace(encoder, name="knows", number=1), bodies).probabilities
    likeliest = (truth / truth.mean(axis=0)).argmax(axis=1)  # it says one of them of all, and knows all the same
    found = examples(
        [Example(body, TASK.label_names[at], "any", {}) for body, at in zip(bodies, likeliest, strict=True)]
    )
    asked = SecondOpinion(release="knows-1", sha256=digest_of(second))

    with Progress() as progress:
        alone = calibrated(own, encoder, 0.1, found=found, progress=progress)
        both = calibrated(own, replace(encoder, second_opinion=asked), 0.1, found=found, progress=progress)

    assert alone.calibration.second_weight == 0.0
    assert both.calibration.second_weight > 1.0
    assert both.second_opinion == asked


def test_a_calibration_error_that_too_few_tell_may_be_anything_and_counts_as_the_largest() -> None:
    said, labels = np.tile([0.9, 0.1], (100, 1)), np.zeros(100, np.int64)

    assert _calibration_error(said, labels, np.arange(100)) == Estimate(1.0, 0.0, 1.0)


def test_what_a_release_takes_of_memory_does_not_depend_on_what_was_opened_before(
    capfd: pytest.CaptureFixture[str],
) -> None:
    path = SHIPPED / "soc-triage.gguf"
    with Model(path, vocabulary_only=True) as model:
        release = read_release(model)
    capfd.readouterr()

    before = _resident_alone(path, release, BODIES)
    for _ in range(2):
        ask.ask(path, release, BODIES)
    capfd.readouterr()
    after = _resident_alone(path, release, BODIES)

    assert before > path.stat().st_size  # which is not mapped
    assert after == pytest.approx(before, rel=0.1)
    assert capfd.readouterr().out == ""  # that is for results
