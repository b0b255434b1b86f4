"""What the bench of the cache says is counted from what came out of the flow, and held against the model."""

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from bench.cache.__main__ import main, measure
from bench.cache.agreement import Disagreement, disagreement, of_replays, row, spread
from bench.cache.audits import delays
from bench.cache.cost import key_us
from bench.cache.flow import Run
from bench.cache.stream import Sizes, Stream
from models.contracts.policy import CacheRules
from models.contracts.release import Prompt
from tests.fakes.classifier import release
from tests.fakes.tiny_models import RELEASE, tiny_reader
from tests.fakes.verdicts import verdict


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_reader(tmp_path_factory.mktemp("models") / "tiny.gguf"))


def test_every_line_that_went_through_the_door_has_a_verdict_in_its_order(model: str) -> None:
    stream = Stream(40)
    sent = [stream.replay(number) for number in range(3)]

    run = Run(model, sent, cached=True)

    came = [one for one in run.verdicts() if one.revision == 0]
    assert [one.text for one in came] == [text for texts in sent for text in texts]
    assert run.hit_rate == sum(one.cached is not None for one in came) / run.events
    assert 0 < run.hit_rate < 1
    assert set(run.told["split_us"]) == {"decode", "key", "lookup", "decide", "encode"}


def test_with_the_cache_off_the_model_answers_every_line(model: str) -> None:
    run = Run(model, [Stream(10).replay(0)] * 3, cached=False)

    assert run.hit_rate == 0
    assert {name: count for name, count in run.told["counts"].items() if count} == {"asked": 3 * len(Stream(10))}


@pytest.mark.parametrize(("count", "found"), [(1, {0}), (4, {0, 2, 5, 7}), (10, set(range(10))), (99, set(range(10)))])
def test_replays_are_judged_from_the_first_to_the_last_evenly(count: int, found: set[int]) -> None:
    assert spread(count, 10) == found


def test_what_is_taken_back_shifts_no_replay_and_stays() -> None:
    came = [verdict(id=str(number), revision=number == 2) for number in range(7)]

    assert [one.id for one in of_replays(came, {0, 2}, 2)] == ["0", "1", "2", "5", "6"]


def test_a_wrong_label_counts_for_every_event_that_got_it_and_one_taken_back_is_said() -> None:
    came = [
        verdict(id="1", text="job 1 done", label="benign", cached="a"),
        verdict(id="2", text="job 1 attack", label="benign", cached="b"),
        verdict(id="3", text="job 1 attack", label="benign", cached="b"),
        verdict(id="4", text="job 1 attack", label="benign"),  # the model's own
        verdict(id="2", text="job 1 attack", label="critical", revision=1),
    ]
    asked: list[str] = []

    def labels(bodies: list[str]) -> list[str]:
        asked.extend(bodies)
        return ["critical" if "attack" in body else "benign" for body in bodies]

    found = disagreement(came, release(), labels)

    assert asked == ["job 1 done", "job 1 attack"]
    assert (found.cached, found.superseded) == (3, 1)
    assert [(one.id, own) for one, own in found.wrong] == [("2", "critical"), ("3", "critical")]
    assert (found.wordings, found.checked) == (2, 0)


def test_that_one_wording_has_one_label_is_checked_where_it_has_several_texts() -> None:
    reads_words = replace(RELEASE, prompt=Prompt(kind="encoder", wording="words-1"))
    came = [
        verdict(id=host, text=f"login from 203.0.113.{host}", label="benign", cached="a") for host in ("9", "10", "11")
    ]

    def by_address(bodies: list[str]) -> list[str]:
        return ["critical" if body.endswith(".10") else "benign" for body in bodies]

    found = disagreement(came, reads_words, by_address)

    assert (found.wordings, found.checked, found.otherwise) == (1, 2, 1)
    assert (found.share, row(found, "1 of 1 replays").passed) == (0, False)


@pytest.mark.parametrize(("wrong", "otherwise", "passed"), [(0, 0, True), (1, 2, True), (2, 0, False), (0, 3, False)])
def test_the_cache_agrees_where_neither_its_labels_nor_those_of_one_wording_differ_by_more_than_one_in_a_thousand(
    wrong: int,
    otherwise: int,
    passed: bool,  # noqa: FBT001
) -> None:
    found = Disagreement(
        cached=1_000,
        wrong=[(verdict(), "critical")] * wrong,
        superseded=0,
        wordings=50,
        checked=2_000,
        otherwise=otherwise,
    )

    said = row(found, "1 of 1 replays")

    assert (said.value, said.passed) == (wrong / 1_000, passed)
    assert said.peer.endswith(f"; {otherwise} of 2000 texts unlike the first of their wording")


def test_an_entry_answers_the_longer_the_rarer_its_audits_are() -> None:
    def total(rate: float) -> int:
        rules = CacheRules(audit_rate=rate, audit_rate_young=0, audit_rate_grave=0)
        return sum(delays(40, rules, hits=0))

    assert total(1.0) == 0
    assert 0 < total(0.5) < total(0.05)


def test_a_key_takes_time() -> None:
    assert key_us(["sshd: Failed password for root from 203.0.113.9 port 51000 ssh2"]) > 0


def test_a_full_cache_takes_memory(model: str) -> None:
    (row,) = measure({"cache_mb"}, Sizes(release=model, lines=30, entries=2_000))

    assert row.value > 0
    assert row.unit == "MiB for 2000 entries"


def test_only_what_was_asked_for_is_measured_and_an_unknown_name_refused() -> None:
    (row,) = measure({"audit_delay"}, Sizes(trials=3))

    assert row.name == "audit_delay"
    assert CliRunner().invoke(main, ["--only", "speed"]).exit_code == 2
