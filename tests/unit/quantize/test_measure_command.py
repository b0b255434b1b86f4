import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from models.contracts.policy import Policy
from models.contracts.release import Release
from quantize import ask
from quantize.ask import Answers
from quantize.events import body_of
from quantize.labelled import Labelled
from quantize.main import cli
from quantize.measure import Estimate, FieldScores
from quantize.measured import Majority, Measured, measured, tables
from quantize.named_release import named_release
from tests.fakes.tiny_models import RELEASE as TINY

ROOT = Path(__file__).parents[3]
NAMES = TINY.task.label_names
EVENTS = 40


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["measure", *map(str, arguments)])


@pytest.fixture(scope="module")
def release() -> Release:
    return named_release("soc-triage")[1]


@pytest.fixture(scope="module")
def answered(release: Release) -> list[tuple[str, str]]:
    """Events, golden ones and lines with headers, each with the label that the shipped release gives its body.

    The surest of them: the events beside it in a batch would tip an undecided one over.
    """
    lines = (ROOT / "edge/sample.log").read_text(encoding="utf-8").splitlines()[:EVENTS]
    texts = [*(golden.text for golden in release.golden), *lines]
    with ask.Asked(named_release(release.name)[0], release, fields=False) as classifier:
        said = ask.answers_of(classifier, [body_of(text) for text in texts])
    second, first = np.sort(said.probabilities, axis=1)[:, -2:].T
    surest = sorted(np.argsort(second - first)[:EVENTS])
    return [(texts[at], release.task.label_names[said.chosen[at]]) for at in surest]


def written(path: Path, rows: Sequence[dict[str, object]]) -> Path:
    path.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
    return path


def answers(probabilities: Sequence[Sequence[float]], fields: Sequence[dict[str, tuple[str, ...]]] = ()) -> Answers:
    given = list(fields) or [{}] * len(probabilities)
    return Answers(np.array(probabilities), np.ones(len(probabilities)), given)


def event(label: str, group: str, fields: dict[str, tuple[str, ...]] | None = None) -> Labelled:
    return Labelled(f"an event of {group}", label, group, fields or {})


def printed(found: Measured, file: str = "labelled.jsonl") -> str:
    console = Console(width=120, color_system=None)
    with console.capture() as shown:
        console.print(*tables(found, file), sep="\n")
    return shown.get()


BENIGN, SUSPICIOUS, CRITICAL = (0.9, 0.07, 0.03), (0.2, 0.7, 0.1), (0.02, 0.03, 0.95)


def test_what_the_release_answers_is_right_and_every_other_label_is_not(
    tmp_path: Path, release: Release, answered: list[tuple[str, str]]
) -> None:
    rows: list[dict[str, object]] = [{"text": text, "label": label} for text, label in answered]
    for row in rows[::4]:
        row["label"] = "critical" if row["label"] == "benign" else "benign"
    done = run("soc-triage", "--events", written(tmp_path / "labelled.jsonl", rows), "--json")

    assert (done.exit_code, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert (found["release"], found["events"]) == (release.title, EVENTS)
    assert found["accuracy"]["value"] == 0.75
    assert 0.5 < found["accuracy"]["low"] < 0.75 < found["accuracy"]["high"] < 1.0
    assert sum(score["events"] for score in found["by_label"].values()) == EVENTS
    assert (found["by_source"], found["fields"]) == ([], {})


def test_the_tables_say_the_same_and_name_the_sources(tmp_path: Path, answered: list[tuple[str, str]]) -> None:
    rows = [
        {"text": text, "label": label, "product": f"product {at % 23:02}"} for at, (text, label) in enumerate(answered)
    ]
    file = written(tmp_path / "labelled.jsonl", rows)
    done = run("soc-triage", "--events", file, "--group-by", "product")

    assert (done.exit_code, done.stderr) == (0, "")
    assert f"{EVENTS} events, from 23 sources" in done.stdout
    assert done.stdout.count(str(Estimate(1.0, 0.025 ** (1 / 23), 1.0))) == 2  # accuracy and macro-F1
    assert sum("product " in line for line in done.stdout.splitlines()) == 20
    assert "and 3 smaller ones" in done.stdout
    assert "\x1b" not in done.stdout


def test_fields_are_read_off_where_the_file_has_them(
    tmp_path: Path, release: Release, answered: list[tuple[str, str]]
) -> None:
    rows: list[dict[str, object]] = [{"text": text, "label": label} for text, label in answered]
    # A golden one at least.
    with_fields = next(row for row in rows if row["label"] in release.task.fields_for)
    with_fields["fields"] = {"observable": [str(with_fields["text"]).split()[-1]]}
    file = written(tmp_path / "labelled.jsonl", rows)
    found = json.loads(run("soc-triage", "--events", file, "--json").stdout)

    assert found["field_events"] == 1
    assert found["fields"]["observable"]["wanted"] == 1
    assert found["fields"]["source"]["recall"] == 0


def test_figures_are_of_the_file_alone() -> None:
    release = msgspec.structs.replace(TINY, policy=Policy(accept_at=0.8))
    events = [event("benign", "a"), event("benign", "a"), event("benign", "b"), event("critical", "c")]
    found = measured(release, events, answers([BENIGN, CRITICAL, SUSPICIOUS, CRITICAL]), by_source=True)

    assert found.accuracy.value == 0.5
    assert found.witnesses == 3
    # F1 of benign is 1/2 and of critical 2/3; the file has nothing suspicious, so that counts for neither.
    assert found.macro_f1.value == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert found.majority == Majority("benign", 0.75, pytest.approx((6 / 7) / 2))
    assert found.accepted == 0.75
    assert found.error_among_accepted is not None
    assert found.error_among_accepted.value == pytest.approx(1 / 3)
    assert [(row.source, row.events) for row in found.by_source] == [("a", 2), ("b", 1), ("c", 1)]


def test_a_perfect_release_is_as_sure_of_its_macro_f1_where_a_resample_lacks_its_rare_label() -> None:
    labels = [*["benign"] * 100, *["suspicious"] * 100, "critical"]
    said = [{"benign": BENIGN, "suspicious": SUSPICIOUS, "critical": CRITICAL}[label] for label in labels]
    found = measured(TINY, [event(label, str(at)) for at, label in enumerate(labels)], answers(said), by_source=False)

    assert found.macro_f1 == found.accuracy == Estimate(1.0, pytest.approx(0.025 ** (1 / 201)), 1.0)


def test_the_interval_of_an_ece_that_is_all_chance_reaches_below_it() -> None:
    chance = np.random.default_rng(8)
    said = chance.dirichlet((1, 1, 1), 300)
    labels = [str(chance.choice(NAMES, p=row)) for row in said]
    found = measured(
        TINY, [event(label, str(at)) for at, label in enumerate(labels)], answers(said.tolist()), by_source=False
    )

    assert found.ece.low < 0.5 * found.ece.value < found.ece.high


def test_of_fewer_than_two_hundred_the_calibration_error_is_not_told() -> None:
    def table(events: int) -> str:
        truth = [event(("benign", "critical")[at % 2], str(at)) for at in range(events)]
        return printed(measured(TINY, truth, answers([BENIGN] * events), by_source=False))

    assert "too few tell it" in table(199)
    assert "too few tell it" not in table(200)


def test_that_none_of_a_few_was_wrong_is_not_that_none_ever_is() -> None:
    events = [event(("benign", "critical")[at % 2], str(at)) for at in range(12)]
    found = measured(TINY, events, answers([BENIGN, CRITICAL] * 6), by_source=False)

    assert found.error_among_accepted is not None
    assert found.error_among_accepted.value == 0.0
    assert 0.2 < found.error_among_accepted.high < 0.3
    assert found.accuracy.low == pytest.approx(1 - found.error_among_accepted.high)


def test_where_nothing_is_accepted_there_is_no_error_among_it() -> None:
    release = msgspec.structs.replace(TINY, policy=Policy(accept_at=1.0))
    found = measured(release, [event("benign", "a"), event("critical", "b")], answers([BENIGN] * 2), by_source=False)

    assert (found.accepted, found.error_among_accepted) == (0.0, None)
    assert "none accepted" in printed(found)


def test_fields_count_where_the_label_is_right_and_has_fields() -> None:
    wanted = {"source": ("an",)}
    events = [event("critical", "a", wanted), event("critical", "b", wanted), event("benign", "c", wanted)]
    given = [{"source": ("an",), "technique": ("T1110",)}, {"source": ("event",)}, {"source": ("an",)}]
    found = measured(TINY, events, answers([CRITICAL, SUSPICIOUS, BENIGN], given), by_source=False)

    assert found.field_events == 1
    assert found.fields["source"] == FieldScores(1.0, 1.0, 1)
    assert found.fields["technique"] == FieldScores(0.0, 0.0, 0)


def test_few_witnesses_are_said_to_be_few() -> None:
    few = measured(TINY, [event(name, name) for name in NAMES] * 20, answers([BENIGN] * 60), by_source=False)
    many = measured(TINY, [event(NAMES[at % 3], str(at)) for at in range(60)], answers([BENIGN] * 60), by_source=False)

    assert "So few say little" in printed(few)
    assert "So few say little" not in printed(many)


def test_names_that_a_stranger_gave_are_shown_as_text() -> None:
    events = [event("benign", "\x1b[2J[red]a"), event("critical", "b")]
    shown = printed(measured(TINY, events, answers([BENIGN] * 2), by_source=True), file="[bold]\x07.jsonl")

    assert "\\x1b[2J[red]a" in shown
    assert "[bold]\\x07.jsonl" in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("no-such-release",), "no such file, and no shipped release of that name"),
        (("soc-triage", "--group-by", "product"), "no `product`, by which events are parted"),
        (("soc-triage", "--task", "task.toml"), "carries a release with a task of its own"),
        (("soc-triage-small", "--context-tokens", "64"), "raise `context_tokens`"),
    ],
)
def test_what_cannot_be_measured_is_one_sentence(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    rows = [{"text": "a b", "label": "benign"}, {"text": "c d", "label": "critical"}]
    done = run(*arguments, "--events", written(tmp_path / "labelled.jsonl", rows))

    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("quantize: ")
    assert done.stderr.count("\n") == 1
    assert said in done.stderr


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"Failed password for root\n", "line 1: "),
        (b'{"text": "a", "label": "benign"}\n{"text": "b", "label": "bening"}\n', "`benign` perhaps"),
        (b'{"text": "a", "label": "benign"}\n', "the one label 'benign'"),
        (b"", "0 events with no label"),
    ],
)
def test_a_file_that_is_not_labelled_is_one_sentence(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "events.jsonl"
    file.write_bytes(content)
    done = run("soc-triage", "--events", file)

    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith(f"quantize: {file}: ")
    assert said in done.stderr


def test_a_file_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    done = run("soc-triage", "--events", tmp_path / "nothing.jsonl")

    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == f"quantize: {tmp_path / 'nothing.jsonl'}: cannot be read: No such file or directory\n"


def test_help_of_all_three_answers_without_loading_a_runtime() -> None:
    loads = (
        "import sys, quantize.measure_command, quantize.compare, quantize.label; "
        "print([name for name in ('llama_cpp', 'scipy', 'sklearn', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", loads], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"
    help_text = run("--help").stdout
    assert "Examples:\n    python -m quantize measure soc-triage" in help_text
