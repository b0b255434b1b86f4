"""Labelling by hand: through piped keys mostly, and once as a person does it, on a terminal."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from models.contracts.task import Label
from quantize import ask
from quantize.events import body_of
from quantize.labelling import Unlabelled, keys_of, named, picture, rules_of
from quantize.main import cli
from quantize.named_release import named_release
from tests.fakes.tiny_models import TASK, tiny_decoder

ROOT = Path(__file__).parents[3]
NAMES = TASK.label_names
TEXTS = (ROOT / "edge/sample.log").read_text(encoding="utf-8").splitlines()[:30]
PATIENCE_S = 100.0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_decoder(tmp_path_factory.mktemp("model") / "tiny.gguf", seed=5)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "events.log"
    path.write_text("".join(f"{text}\n" for text in TEXTS), encoding="utf-8")
    return path


@pytest.fixture
def out(log: Path) -> Path:
    return log.with_name("events.log.labelled.jsonl")


def label(file: Path, release: str | Path, *arguments: str | Path, keys: str = "") -> Result:
    return CliRunner().invoke(cli, ["label", str(file), "--release", *map(str, (release, *arguments))], input=keys)


def rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def margins(model: Path, texts: list[str]) -> list[float]:
    path, release = named_release(str(model))
    with ask.Asked(path, release, fields=False) as classifier:
        said = ask.answers_of(classifier, [body_of(text) for text in texts]).probabilities
    two = np.sort(said, axis=1)
    return [float(margin) for margin in two[:, -1] - two[:, -2]]


@contextmanager
def typing(log: Path, model: Path, **streams: int) -> Iterator[subprocess.Popen[bytes]]:
    """Start the real command, and end it whatever happens."""
    process = subprocess.Popen(
        [sys.executable, "-m", "quantize", "label", str(log), "--release", str(model)],
        cwd=ROOT,
        env={**os.environ, "TERM": "xterm-256color"},
        start_new_session=True,
        **streams,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def until(true: object, what: str) -> None:
    """Wait until a condition, called again and again, is true."""
    assert callable(true)
    deadline = monotonic() + PATIENCE_S
    while not true():
        assert monotonic() < deadline, what
        sleep(0.02)


# --- keys and pictures


def test_labels_have_keys_by_place_and_by_a_first_letter_that_is_free() -> None:
    assert keys_of(NAMES) == {"1": 0, "b": 0, "2": 1, "3": 2, "c": 2}  # s skips
    assert keys_of(("cat", "cow", "Dog")) == {"1": 0, "2": 1, "3": 2, "d": 2}


@pytest.mark.parametrize(("count", "with_a_key"), [(12, 12), (58, 58), (77, 58)])
def test_no_two_labels_share_a_key_and_commands_keep_theirs(count: int, with_a_key: int) -> None:
    keys = keys_of([f"{chr(97 + at % 26)}{at}" for at in range(count)])

    assert len(set(keys.values())) == with_a_key
    assert [keys[key] for key in "123456789abc"] == list(range(12))
    assert not {"s", "u", "q", "?", "/", ""} & keys.keys()


def test_a_name_means_the_label_that_is_called_so_or_begins_so_or_has_it_inside() -> None:
    names = ("card", "card_arrival", "lost_card", "top_up")

    assert named("CARD", names) == [0]
    assert named("card_", names) == [1]
    assert named("lost", names) == named("t_c", names) == [2]
    assert named("o", names) == [2, 3]
    assert named("x", names) == []


def shown(part: object) -> list[str]:
    console = Console(width=60, color_system=None)
    with console.capture() as captured:
        console.print(part)
    return [line.rstrip() for line in captured.get().splitlines()]


def test_an_event_is_shown_as_text_whatever_it_contains() -> None:
    event = Unlabelled("", "Jan 1 \x07 web-1 ", "sshd: \x1b[2J\u202e[bold]x" + "y" * 100, (0.2, 0.7, 0.1))
    lines = shown(picture(event, TASK, keys_of(NAMES)))

    assert lines[0] == "Jan 1 \\x07 web-1"
    assert "".join(lines[1:4]) == "sshd:\\x1b[2J\\u202e[bold]x" + "y" * 100  # wrapped at the space
    assert [line.split()[:2] for line in lines if "%" in line] == [["1", "b"], ["2", "suspicious"], ["3", "c"]]
    assert any(line.startswith("Enter suspicious") for line in lines)


def test_of_many_labels_the_likeliest_are_shown_and_the_rules_name_all() -> None:
    labels = tuple(Label(f"label-{at}", f"[what] {at} means") for at in range(77))
    task = msgspec.structs.replace(TASK, labels=labels, default_label="label-0", fields_for=())
    chances = np.random.default_rng(3).dirichlet([1.0] * 77)
    keys = keys_of(task.label_names)
    likeliest = [f"label-{at}" for at in np.argsort(-chances)[:9]]

    picture_of_it = shown(picture(Unlabelled("a", "", "a", tuple(chances)), task, keys))
    assert [line.split()[1] for line in picture_of_it if "%" in line] == likeliest
    rules = shown(rules_of(task, keys, "# Rules\n\nread them"))
    assert [line.split()[1:5] for line in rules if "means" in line] == [
        [f"label-{at}", "[what]", str(at), "means"] for at in range(77)
    ]
    assert "read them" in rules


# --- piped keys


def test_each_key_is_a_line_of_the_file_and_the_least_certain_event_is_the_first(
    log: Path, out: Path, model: Path
) -> None:
    done = label(log, model, keys="3\n\nb\n/\nsusp\n")

    assert (done.exit_code, done.stderr) == (0, "")
    given = rows(out)
    assert [row["label"] for row in given] == ["critical", given[1]["model_label"], "benign", "suspicious"]
    assert all(row["text"] in TEXTS and 1 / 3 <= float(str(row["confidence"])) <= 1 for row in given)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", str(row["labelled_at"])) for row in given)
    assert given[0]["text"] == TEXTS[int(np.argmin(margins(model, TEXTS)))]
    assert f"labelled 4 of {len(TEXTS)} events; {out} has 4 (" in done.stdout
    assert done.stdout.endswith(f"next: python -m quantize measure {model} --events {out}\n")
    assert "\x1b" not in done.stdout


def test_the_shipped_release_says_what_it_thinks_and_shows_its_rules(log: Path, out: Path) -> None:
    done = label(log, "soc-triage", "--most", "10", keys="?\n2\n")

    assert (done.exit_code, done.stderr) == (0, "took 10 of 30 different events, evenly\n")
    assert "A refused login is suspicious however often." in done.stdout
    assert "waiting is wrong: an attack at work" in done.stdout
    assert [row["label"] for row in rows(out)] == ["suspicious"]
    assert "labelled 1 of 10 events" in done.stdout


def test_the_same_command_goes_on_where_it_stopped(log: Path, out: Path, model: Path) -> None:
    label(log, model, keys="1\n2\n")
    done = label(log, model, keys="3\n" * 100)

    assert f"labelled {len(TEXTS) - 2} of {len(TEXTS) - 2} events" in done.stdout
    assert sorted(str(row["text"]) for row in rows(out)) == sorted(TEXTS)
    assert [row["label"] for row in rows(out)] == ["benign", "suspicious"] + ["critical"] * (len(TEXTS) - 2)
    finished = label(log, model, keys="1\n")
    assert f"labelled 0 of 0 events; {out} has {len(TEXTS)} (1 benign, 1 suspicious, 28 critical)" in finished.stdout


def test_undo_takes_labels_back_and_goes_back_over_skips(log: Path, out: Path, model: Path) -> None:
    label(log, model, "--out", out.with_name("straight"), keys="1\n1\n1\n")
    first, second, third = [row["text"] for row in rows(out.with_name("straight"))]
    label(log, model, keys="1\n")
    before = out.read_bytes()

    done = label(log, model, keys="u\n2\ns\nu\nu\n3\nu\nu\ns\n2\nq\n1\n")

    assert done.stdout.count("nothing to undo") == 2
    assert done.stdout.count("back to what was skipped") == 1
    assert done.stdout.count("took the label back") == 2
    assert out.read_bytes().startswith(before)
    assert [(row["text"], row["label"]) for row in rows(out)] == [(first, "benign"), (third, "suspicious")]
    assert second in TEXTS


def test_a_key_that_is_none_and_a_name_that_is_several_label_nothing(log: Path, out: Path, model: Path) -> None:
    done = label(log, model, keys="9\n\x1b[A\n/\ni\n/\n")

    assert not out.exists()
    assert "next: the same command" in done.stdout
    assert "`9` is no key here" in done.stdout
    assert "`\\x1b[A` is no key here" in done.stdout
    assert "3 labels are like that" in done.stdout


def test_what_differs_in_the_header_alone_is_asked_once(tmp_path: Path, model: Path) -> None:
    log = tmp_path / "events.log"
    lines = [f"Jan  2 03:04:{at:02} web-1 sshd[{at}]: Failed password for root" for at in range(20)]
    log.write_text("\n".join([*lines, "Jan  2 03:05:00 web-1 kernel: link is up"]))
    done = label(log, model, keys="1\n1\n1\n")

    assert "labelled 2 of 2 events" in done.stdout
    assert "labelled 0 of 0 events" in label(log, model, keys="1\n").stdout


def test_json_lines_are_read_at_the_path(tmp_path: Path, model: Path) -> None:
    log, out = tmp_path / "events.jsonl", tmp_path / "mine.jsonl"
    log.write_text('{"message": "link is up"}\nno json\n{"message": "disk is full"}\n')
    done = label(log, model, "--jsonl", "message", "--out", out, keys="1\n2\n")

    assert done.stderr == f"{log}: left out 1 of 3 lines: no text at `message`\n"
    assert {row["text"] for row in rows(out)} == {"link is up", "disk is full"}


def test_a_model_without_a_release_is_asked_by_a_task_file(log: Path, out: Path, tmp_path: Path) -> None:
    instruct = tiny_decoder(tmp_path / "instruct.gguf", release=None)
    task = tmp_path / "task.toml"
    labels = "".join(f'[[labels]]\nname = "{one.name}"\ndescription = "{one.description}"\n' for one in TASK.labels)
    task.write_text(f'name = "{TASK.name}"\ninstruction = "Triage."\ndefault_label = "{TASK.default_label}"\n{labels}')
    rules = tmp_path / "rules.md"
    rules.write_text("Look twice.")
    done = label(log, instruct, "--task", task, "--rules", rules, "--most", "3", keys="?\n2\n1\n")

    assert done.exit_code == 0
    assert "Look twice." in done.stdout
    assert [row["label"] for row in rows(out)] == ["suspicious", "benign"]
    assert done.stdout.endswith(f"--events {out} --task {task} --context-tokens 1024\n")


# --- what cannot work


@pytest.mark.parametrize(
    "content",
    [b'{"text": "a", "label": "benign"}\n{"text": "b", "lab', b'{"text": "a", "label": "routine"}\n', b"\x00\x01\n"],
)
def test_a_damaged_out_file_is_one_sentence_and_is_not_touched(
    log: Path, out: Path, model: Path, content: bytes
) -> None:
    out.write_bytes(content)
    written_ns = out.stat().st_mtime_ns
    done = label(log, model, keys="1\n1\n")

    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith(f"quantize: {out}: line ")
    assert done.stderr.count("\n") == 1
    assert (out.read_bytes(), out.stat().st_mtime_ns) == (content, written_ns)


def test_what_is_read_is_not_written_to(log: Path, model: Path) -> None:
    content = log.read_bytes()
    done = label(log, model, "--out", log.parent / "." / log.name, keys="1\n")

    assert done.exit_code == 2
    assert "is what is read" in done.stderr
    assert log.read_bytes() == content


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--out", "/no/such/folder/out.jsonl"), "no such folder"),
        (("--rules", "/no/such/rules.md"), "the rules cannot be read"),
        (("--task", "/no/such/task.toml"), "carries a release with a task of its own"),
        (("--context-tokens", "64"), "raise `context_tokens`"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(log: Path, model: Path, arguments: tuple[str, ...], said: str) -> None:
    done = label(log, model, *arguments, keys="1\n")

    assert (done.exit_code, done.stdout) == (2, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


# --- a process of its own


def test_what_was_labelled_is_kept_when_the_process_is_killed(log: Path, out: Path, model: Path) -> None:
    with typing(log, model, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        assert process.stdin is not None
        process.stdin.write(b"1\n2\n3\n")
        process.stdin.flush()
        until(lambda: out.exists() and out.read_bytes().count(b"\n") == 3, "three labels on the disk")
        process.kill()
        process.wait()
        assert process.returncode == -signal.SIGKILL
        process.stdin.close()
    before = out.read_bytes()
    label(log, model, keys="1\n")

    assert [row["label"] for row in rows(out)] == ["benign", "suspicious", "critical", "benign"]
    assert out.read_bytes().startswith(before)
    assert len({str(row["text"]) for row in rows(out)}) == 4


class Person:
    """Reads a terminal and presses keys on it, each when it is asked for."""

    def __init__(self, terminal: int) -> None:
        self._terminal = terminal
        self.read = ""

    def sees(self, words: str) -> None:
        """Read on until the words are there, and leave what follows them to the next time."""
        deadline = monotonic() + PATIENCE_S
        while words not in self.read:
            ready, _, _ = select.select([self._terminal], [], [], max(0.0, deadline - monotonic()))
            assert ready, f"no {words!r} in {self.read!r}"
            try:
                self.read += os.read(self._terminal, 65536).decode("utf-8", "replace")
            except OSError:  # the other side has closed it
                assert words in self.read
        self.read = self.read.partition(words)[2]

    def presses(self, key: str) -> None:
        self.sees("q quit")
        until(lambda: not termios.tcgetattr(self._terminal)[3] & termios.ICANON, "a key is read")
        os.write(self._terminal, key.encode())


def test_a_person_labels_on_a_terminal(log: Path, out: Path, model: Path) -> None:
    terminal, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 100, 0, 0))
    with typing(log, model, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        person = Person(terminal)
        person.sees(f"0 labelled, {len(TEXTS)} to go")
        person.sees("\x1b[")  # colour
        person.presses("2")
        person.sees("suspicious; u takes it back")
        person.presses("c")
        person.sees("critical; u takes it back")
        person.presses("u")
        person.sees("took the label back")
        person.presses("s")
        person.sees("skipped")
        person.presses("?")
        person.sees("A refused login is suspicious however often.")
        person.presses("\x1b[A")
        person.sees("`\\x1b[A` is no key here")
        person.presses("/")
        person.sees("label: ")
        os.write(terminal, b"ben\n")
        person.sees("benign; u takes it back")
        person.presses("/susp\r")
        person.sees("suspicious; u takes it back")
        person.presses("/cr")
        person.sees("label: cr")
        os.write(terminal, b"it\n")
        person.sees("critical; u takes it back")
        person.presses("2\r")  # the Enter was typed before the next event was there
        person.sees("suspicious; u takes it back")
        person.sees("5 labelled")
        person.presses("\r")
        person.sees("6 labelled")
        person.presses("\x03")
        person.sees("labelled 6 of 30 events")
        person.sees("next: python -m quantize measure")
        assert process.wait(PATIENCE_S) == 0
    os.close(terminal)

    given = rows(out)
    assert [row["label"] for row in given[:5]] == ["suspicious", "benign", "suspicious", "critical", "suspicious"]
    assert given[5]["label"] == given[5]["model_label"]
    assert len({str(row["text"]) for row in given}) == 6
