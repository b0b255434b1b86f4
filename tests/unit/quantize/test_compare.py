import json
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from models.contracts.errors import InputError
from models.contracts.release import Release
from models.contracts.task import Label
from quantize import ask
from quantize.compare import same_labels
from quantize.differences import Differences, differences, exact_p, mcnemar, surest, tables
from quantize.events import body_of
from quantize.main import cli
from quantize.named_release import named_release
from tests.fakes.tiny_models import RELEASE, TASK, tiny_decoder

ROOT = Path(__file__).parents[3]
NAMES = TASK.label_names
TEXTS = (ROOT / "edge/sample.log").read_text(encoding="utf-8").splitlines()[:40]


def with_labels(labels: Sequence[Label], name: str = "other") -> Release:
    task = msgspec.structs.replace(TASK, labels=tuple(labels), fields_for=(), default_label=labels[0].name)
    return msgspec.structs.replace(RELEASE, name=name, task=task)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny releases: one, one with other weights, one with the first's weights that lists its labels otherwise."""
    folder = tmp_path_factory.mktemp("models")
    return {
        "one": tiny_decoder(folder / "one.gguf"),
        "other": tiny_decoder(folder / "other.gguf", seed=5),
        "turned": tiny_decoder(folder / "turned.gguf", with_labels(TASK.labels[::-1])),
        "wider": tiny_decoder(folder / "wider.gguf", with_labels([*TASK.labels[:2], Label("Failed", "it failed")])),
    }


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "events.log"
    path.write_text("".join(f"{text}\n" for text in TEXTS), encoding="utf-8")
    return path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["compare", *map(str, arguments)])


def chosen(model: Path) -> list[str]:
    path, release = named_release(str(model))
    with ask.Asked(path, release, fields=False) as classifier:
        answers = ask.answers_of(classifier, [body_of(text) for text in TEXTS])
    return [release.task.label_names[at] for at in answers.chosen]


def printed(found: Differences, width: int = 120) -> list[str]:
    console = Console(width=width, color_system=None)
    with console.capture() as shown:
        for part in tables(found, "events.log"):
            console.print(part)
    return shown.get().splitlines()


def found_in(texts: Sequence[str], a: Sequence[str], b: Sequence[str], truth: Sequence[str] | None) -> Differences:
    """What comes of two releases that are as sure of every label."""
    said = [np.array([[0.8 if name == label else 0.1 for name in NAMES] for label in side]) for side in (a, b)]
    return differences(("one-1", "other-1"), NAMES, texts, said, truth, most_examples=10)


def test_the_matrix_and_the_examples_are_what_the_two_releases_answer(models: dict[str, Path], log: Path) -> None:
    done = run(models["one"], models["other"], "--events", log, "--examples", 1000, "--json")
    one, other = chosen(models["one"]), chosen(models["other"])

    assert (done.exit_code, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    counted = [
        [sum(pair == (mine, theirs) for pair in zip(one, other, strict=True)) for theirs in NAMES] for mine in NAMES
    ]
    differing = [at for at in range(len(TEXTS)) if one[at] != other[at]]
    assert 0 < len(differing) < len(TEXTS)
    assert found["matrix"] == counted
    assert found["differ"]["value"] == pytest.approx(len(differing) / len(TEXTS))
    assert sorted((each["text"], each["a"], each["b"]) for each in found["examples"]) == sorted(
        (TEXTS[at], one[at], other[at]) for at in differing
    )
    assert found["mcnemar"] is None
    assert {each["truth"] for each in found["examples"]} == {None}


def test_where_truth_is_there_it_says_who_is_right(models: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "labelled.jsonl"
    rows = [{"text": text, "label": label} for text, label in zip(TEXTS, chosen(models["one"]), strict=True)]
    path.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
    found = json.loads(run(models["one"], models["other"], "--events", path, "--json").stdout)

    assert found["a"]["accuracy"]["value"] == 1.0
    assert found["b"]["accuracy"]["value"] == pytest.approx(1 - found["differ"]["value"])
    assert found["mcnemar"]["only_a"] > 0 == found["mcnemar"]["only_b"]
    assert found["mcnemar"]["p_value"] == pytest.approx(2 * 0.5 ** found["mcnemar"]["only_a"])


def test_labels_are_never_read_as_text_and_those_that_contradict_each_other_are_told(
    models: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "labelled.jsonl"
    rows = [b'{"text": "a", "%s": "benign"}', b'{"text": "a", "label": "critical"}']
    path.write_bytes(b"\n".join(rows) % b"lable")
    refused = run(models["one"], models["other"], "--events", path)
    path.write_bytes(b"\xef\xbb\xbf" + b"\n".join(rows) % b"label")
    told = run(models["one"], models["other"], "--events", path)

    assert (refused.exit_code, refused.stderr) == (2, f"quantize: {path}: line 1: no `label`\n")
    assert told.exit_code == 0
    assert told.stderr.startswith(f"{path}: 1 of 1 texts have more than one label; the first, 'a', has `benign`")


def test_labels_in_another_order_are_the_same_labels(models: dict[str, Path], log: Path) -> None:
    found = json.loads(run(models["one"], models["turned"], "--events", log, "--json").stdout)

    assert found["differ"]["value"] == found["differ"]["low"] == 0.0
    assert (1 - found["differ"]["high"]) ** found["witnesses"] == pytest.approx(0.025)  # none of so few
    assert found["examples"] == []


def test_releases_with_different_labels_are_one_sentence(models: dict[str, Path], log: Path) -> None:
    done = run(models["one"], models["wider"], "--events", log)

    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == (
        "quantize: tiny-3 and other-3 answer different questions: "
        "only tiny-3 has `critical`; only other-3 has `Failed`; nothing to compare\n"
    )


def test_a_field_of_json_lines_is_compared_and_lines_without_it_are_counted(
    models: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "events.jsonl"
    rows = [{"event": {"message": text}, "text": "x", "label": "none of them"} for text in TEXTS]
    lines = [json.dumps(row) for row in rows] + ["no json", '{"event": 3}', '{"event": {"message": " "}}', ""]
    path.write_text("\n".join(lines), encoding="utf-8")
    done = run(models["one"], models["other"], "--events", path, "--jsonl", "event.message", "--json")

    assert json.loads(done.stdout)["events"] == len(TEXTS)
    assert done.stderr == f"{path}: left out 3 of {len(TEXTS) + 3} lines: no text at `event.message`\n"


@pytest.mark.parametrize(
    ("content", "arguments", "said"),
    [
        (b"\n \n", (), "0 lines, and not one event in them; wanted a line of text for each event"),
        (b"{}\n[]\n", ("--jsonl", "a.b"), "2 lines, and not one event in them; wanted JSON with a text at `a.b`"),
        (b'{"text": "a", "label": "benign"}\n{"text": "b"}\n', (), "line 2: no `label`"),
    ],
)
def test_a_file_without_events_is_one_sentence(
    models: dict[str, Path], tmp_path: Path, content: bytes, arguments: tuple[str, ...], said: str
) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(content)
    done = run(models["one"], models["other"], "--events", path, *arguments)

    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == f"quantize: {path}: {said}\n"


def test_a_context_that_is_too_small_is_one_sentence(models: dict[str, Path], log: Path) -> None:
    done = run(models["one"], models["other"], "--events", log, "--context-tokens", "64")

    assert (done.exit_code, done.stdout) == (2, "")
    assert "raise `context_tokens`" in done.stderr


def test_a_release_that_is_not_there_is_one_sentence(log: Path) -> None:
    done = run("soc-triage", "no-such-release", "--events", log)

    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("quantize: model `no-such-release`: no such file")


@pytest.mark.parametrize("width", [60, 80, 200])
def test_an_example_is_cut_to_the_width_and_shown_as_text_whatever_it_contains(width: int) -> None:
    text = "Jan  2 03:04:05 web-1 sshd[7]: \x1b[2J\u202e[bold]a\tb " + "and so on " * 40
    lines = printed(found_in([text], ["benign"], ["critical"], ["benign"]), width)
    shown = next(line for line in lines if "sshd" in line)

    assert max(map(len, lines)) <= width
    assert shown.startswith("   sshd: \\x1b[2J\\u202e[bold]a\\tb a"[:width])
    assert shown.endswith("…")
    assert "A benign 0.80  B critical 0.80  truth benign" in [line.rstrip() for line in lines]


def test_of_many_labels_the_most_frequent_pairs_are_shown() -> None:
    names = tuple(f"label-{at}" for at in range(30))
    a = np.eye(30)[[at % 30 for at in range(90)]]
    b = np.eye(30)[[0 if at % 30 == 7 else (at + (at < 30)) % 30 for at in range(90)]]
    texts = [f"event {'x' * at}" for at in range(90)]
    shown = printed(differences(("one-1", "other-1"), names, texts, [a, b], None, most_examples=0))

    first = next(line for line in shown if "label-" in line)
    assert first.split() == ["label-7", "label-0", "3"]
    assert any("and 10 rarer pairs" in line for line in shown)


def test_what_is_piped_has_no_colour(models: dict[str, Path], log: Path) -> None:
    done = run(models["one"], models["other"], "--events", log)

    assert done.exit_code == 0
    assert "where they differ, the surest first" in done.stdout
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize(
    ("one", "other", "chance"),
    [(0, 0, 1.0), (1, 0, 1.0), (2, 0, 0.5), (5, 1, 14 / 64), (1, 5, 14 / 64), (8, 2, 112 / 1024), (10, 10, 1.0)],
)
def test_chance_is_that_of_a_fair_coin(one: int, other: int, chance: float) -> None:
    assert exact_p(one, other) == pytest.approx(chance, rel=1e-12)


def test_chance_is_exact_for_thousands_of_events() -> None:
    # The normal approximation, good to a few in a thousand at this size: two standard deviations, with the half step.
    assert exact_p(5_000, 4_800) == pytest.approx(0.0444, abs=0.0003)
    assert exact_p(20_000, 0) == 0.0


def test_near_repeats_count_once_and_for_the_side_that_more_of_them_favour() -> None:
    a = np.array([True, True, True, False, True, False])
    b = np.array([False, False, False, True, False, True])
    test = mcnemar(a, b, np.array([3, 3, 3, 3, 8, 5]))

    assert (test.only_a, test.only_b, test.p_value) == (2, 1, 1.0)
    texts = [f"Failed password for root from 10.0.0.{at}" for at in range(50)]
    found = found_in(texts, ["benign"] * 50, ["critical"] * 50, ["benign"] * 50)
    assert found.witnesses == 1
    assert found.mcnemar is not None
    assert (found.mcnemar.only_a, found.mcnemar.p_value) == (1, 1.0)


def test_the_surest_come_first_and_both_have_to_be_sure() -> None:
    a, b = np.array([0.99, 0.8, 0.99, 0.7]), np.array([0.4, 0.85, 0.99, 0.9])

    assert surest(np.array([True, True, False, True]), a, b) == [1, 3, 0]


def test_same_labels_says_where_each_stands() -> None:
    turned = with_labels([TASK.labels[2], TASK.labels[0], TASK.labels[1]])

    assert same_labels(RELEASE, turned) == [1, 2, 0]
    with pytest.raises(InputError, match=r"only tiny-3 has `critical`, `suspicious`; only other-3 has `routine`"):
        same_labels(RELEASE, with_labels([TASK.labels[0], Label("routine", "nothing to look at")]))
