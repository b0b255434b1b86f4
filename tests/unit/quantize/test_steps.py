import errno
import json
import os
import re
import resource
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import sleep

import pytest
from msgspec import Struct

from models.contracts.errors import ConfigError, HeadwaterError, InputError, UnavailableError
from quantize.steps import Code, Steps, alone, digest_of_inputs, told_by_the_system
from tests.conftest import absent

ROOT = Path(__file__).parents[3]
UNREADABLE = Path("/proc/self/mem")  # opens even for root, and has no first byte


class Settings(Struct, frozen=True):
    epochs: int = 1
    names: dict[str, int] = {}


class Bench:
    """Steps in a folder, with what they said and how often the work was done."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.said, self.times = folder, list[str](), 0
        self.steps = self.anew()

    def anew(self) -> Steps:
        return Steps(self.folder, self.said.append)

    def run(self, *inputs: object) -> Path:
        def work(out: Path) -> None:
            self.times += 1
            (out / "result").write_text(f"{self.times}", encoding="utf-8")

        return self.steps.run("train", inputs, work)

    def runs_again_for(self, *inputs: object) -> bool:
        before = self.times
        self.run(*inputs)
        return self.times > before


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "release")


def test_a_step_runs_once_for_the_same_inputs(bench: Bench) -> None:
    inputs = (Settings(names={"a": 1, "b": 2}), "text", 3, None)
    done = bench.run(*inputs)
    bench.steps = bench.anew()

    assert bench.run(Settings(names={"b": 2, "a": 1}), "text", 3, None) == done
    assert (bench.times, (done / "result").read_text(encoding="utf-8")) == (1, "1")
    assert "nothing that goes into it has changed" in bench.said[-1]


def test_a_step_runs_again_for_another_value_or_another_order(bench: Bench) -> None:
    bench.run(Settings(), "text", 3)

    assert bench.runs_again_for(Settings(epochs=2), "text", 3)
    assert bench.runs_again_for("text", Settings(), 3)
    assert bench.runs_again_for(Settings(), "text")
    assert not bench.runs_again_for(Settings(), "text", 3)


def test_a_step_runs_again_for_other_bytes_in_a_file(bench: Bench, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_bytes(b"one")
    bench.run(file)
    file.touch()

    assert not bench.runs_again_for(file)
    file.write_bytes(b"two")
    assert bench.runs_again_for(file)


def test_a_step_runs_again_for_whatever_changes_in_a_folder(bench: Bench, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    (folder / "deep").mkdir(parents=True)
    (folder / "config.json").write_bytes(b"{}")
    (folder / "deep" / "weights").write_bytes(b"1")
    bench.run(folder)

    assert not bench.runs_again_for(folder)
    (folder / "deep" / "weights").write_bytes(b"2")
    assert bench.runs_again_for(folder)
    (folder / "config.json").rename(folder / "other.json")
    assert bench.runs_again_for(folder)
    (folder / "new").write_bytes(b"")
    assert bench.runs_again_for(folder)


def test_when_a_folder_of_another_step_was_made_does_not_count(bench: Bench, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "weights").write_bytes(b"1")
    (folder / "step.json").write_bytes(b'{"seconds": 1.0}')
    bench.run(folder)
    (folder / "step.json").write_bytes(b'{"seconds": 2.0}')

    assert not bench.runs_again_for(folder)


def test_a_step_runs_again_for_other_source_of_a_module_which_is_not_imported(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "of_this_test_alone.py"
    module.write_text("raise RuntimeError", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    bench.run(Code(module.stem))

    assert not bench.runs_again_for(Code(module.stem))
    module.write_text("raise RuntimeError  # mended", encoding="utf-8")
    assert bench.runs_again_for(Code(module.stem))
    with pytest.raises(ValueError, match=r"no module quantize\.nowhere"):
        bench.run(Code("quantize.nowhere"))


def test_a_step_by_another_name_is_another_step() -> None:
    assert digest_of_inputs("train", ["x"]) != digest_of_inputs("measure", ["x"])
    assert digest_of_inputs("train", ["x", "y"]) != digest_of_inputs("train", ["x\0y"])


@pytest.mark.parametrize("error", [InputError("it cannot be learnt"), ConfigError("no such base")])
def test_what_failed_leaves_no_folder_and_is_done_anew(bench: Bench, error: HeadwaterError) -> None:
    def fail(out: Path) -> None:
        (out / "half").write_bytes(b"x")
        raise error

    with pytest.raises(type(error), match=str(error)):
        bench.steps.run("train", [1], fail)
    assert list(bench.folder.iterdir()) == []

    done = bench.run(1)
    assert {path.name for path in done.iterdir()} == {"result", "step.json"}
    assert bench.steps.seconds.keys() == {"train"}


def test_what_was_interrupted_is_gone_on_with_in_the_same_folder(bench: Bench) -> None:
    folders = []

    def work(out: Path) -> None:
        folders.append(out)
        if not (out / "state").exists():
            (out / "state").write_bytes(b"half")
            raise KeyboardInterrupt
        (out / "state").rename(out / "result")

    with pytest.raises(KeyboardInterrupt):
        bench.steps.run("train", [1], work)
    left = list(bench.folder.iterdir())
    assert [path.name.endswith(".unfinished") for path in left] == [True]

    bench.steps = bench.anew()
    done = bench.steps.run("train", [1], work)

    assert folders[0] == folders[1] == left[0]
    assert (done / "result").read_bytes() == b"half"
    assert list(bench.folder.iterdir()) == [done]
    assert "train: goes on where it stopped" in bench.said


def test_a_process_that_is_killed_in_a_step_leaves_nothing_that_looks_finished(bench: Bench) -> None:
    child = os.fork()
    if not child:
        bench.steps.run("train", [1], lambda _: os.kill(os.getpid(), signal.SIGKILL))
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL

    assert bench.runs_again_for(1)


def test_how_long_a_step_took_is_remembered(bench: Bench) -> None:
    done = bench.steps.run("train", [1], lambda _: sleep(0.25))
    took = bench.steps.seconds["train"]
    again = bench.anew()
    again.run("train", [1], lambda _: None)

    assert 0.25 <= took < 60
    assert again.seconds == {"train": pytest.approx(took, abs=0.06)}
    assert json.loads((done / "step.json").read_bytes())["step"] == "train"
    assert f"{again.seconds['train']:.1f} s then" in bench.said[-1]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], check=False, capture_output=True
    )
    if mounted.returncode:
        absent(f"no file system may be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


@contextmanager
def files_of_at_most(limit_bytes: int) -> Iterator[None]:
    """Let every file that this process writes end there, as on a file system that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    heard = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, heard)


def write_a_megabyte(out: Path) -> None:
    (out / "weights").write_bytes(b"x" * (1 << 20))


def test_a_full_disk_is_said_in_a_sentence_and_the_step_can_be_done_after(small_disk: Path) -> None:
    bench = Bench(small_disk / "release")

    with pytest.raises(InputError) as refused:
        bench.steps.run("train", [1], write_a_megabyte)

    unfinished = next(bench.folder.iterdir())
    assert str(refused.value) == (
        f"train: cannot write to {unfinished}: {os.strerror(errno.ENOSPC)}; the disk is full: make room, and the same "
        "command goes on"
    )
    (unfinished / "weights").unlink()
    assert bench.runs_again_for(1)


def test_a_file_that_may_not_grow_is_said_in_a_sentence(bench: Bench) -> None:
    with (
        files_of_at_most(1 << 16),
        pytest.raises(InputError, match=f"train: cannot write to .*: {os.strerror(errno.EFBIG)}"),
    ):
        bench.steps.run("train", [1], write_a_megabyte)


def test_a_disk_that_is_full_when_the_work_is_done_leaves_no_note_and_what_was_done(small_disk: Path) -> None:
    bench = Bench(small_disk / "release")

    def fill(out: Path) -> None:
        with (out / "weights").open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"x" * 512)

    with pytest.raises(InputError) as refused:
        bench.steps.run("train", [1], fill)

    unfinished = next(bench.folder.iterdir())
    assert str(refused.value).startswith(
        f"train: cannot write to {unfinished / 'step.json'}: {os.strerror(errno.ENOSPC)}; the disk is full"
    )
    assert {path.name for path in unfinished.iterdir()} == {"weights", "seconds"}


def test_a_note_that_is_cut_off_is_not_left(bench: Bench) -> None:
    with (
        pytest.raises(InputError, match=rf"train: cannot write to .*step\.json: {os.strerror(errno.EFBIG)}"),
        files_of_at_most(8),
    ):
        bench.run(1)

    unfinished = next(bench.folder.iterdir())
    assert {path.name for path in unfinished.iterdir()} == {"result", "seconds"}
    assert bench.runs_again_for(1)


def test_a_folder_that_cannot_be_made_is_said(bench: Bench) -> None:
    bench.folder.write_bytes(b"a file")

    with pytest.raises(InputError, match=rf"train: cannot make {bench.folder}.*: {os.strerror(errno.ENOTDIR)}"):
        bench.run(1)
    assert bench.times == 0


def test_a_folder_that_cannot_get_its_name_is_said_and_has_no_note(bench: Bench) -> None:
    done = bench.run(1)
    (done / "step.json").unlink()

    with pytest.raises(InputError) as refused:
        bench.run(1)

    unfinished = done.with_name(f"{done.name}.unfinished")
    assert str(refused.value) == f"train: cannot rename {unfinished} to {done}: {os.strerror(errno.ENOTEMPTY)}"
    assert {path.name for path in unfinished.iterdir()} == {"result", "seconds"}


def test_an_input_that_cannot_be_read_is_said_before_anything_is_made(bench: Bench, tmp_path: Path) -> None:
    missing = tmp_path / "events.jsonl"

    with pytest.raises(ConfigError, match=f"{missing}: cannot be read: .*{os.strerror(errno.ENOENT)}"):
        bench.run(Settings(), missing)
    assert not bench.folder.exists()


def test_source_that_cannot_be_read_is_said_before_anything_is_made(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "unreadable_in_this_test.py"
    module.symlink_to(UNREADABLE)
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(InputError) as refused:
        bench.run(Code(module.stem))

    assert str(refused.value) == f"train: cannot read {module.stem}: {os.strerror(errno.EIO)}"
    assert not bench.folder.exists()


def test_a_note_that_cannot_be_read_is_said(bench: Bench) -> None:
    note = bench.run(1) / "step.json"
    note.unlink()
    note.symlink_to(UNREADABLE)

    with pytest.raises(InputError, match=f"train: cannot read {note}: {os.strerror(errno.EIO)}"):
        bench.run(1)


@pytest.mark.parametrize("left", [b"", b"\0" * 60, b'{"step":"train","inp', b'{"step":"train"}', b'"\xff'])
def test_a_note_that_a_loss_of_power_left_is_none_and_the_step_is_done_again(bench: Bench, left: bytes) -> None:
    done = bench.run(1)
    (done / "step.json").write_bytes(left)
    (done / "result").write_bytes(b"")

    assert bench.runs_again_for(1)
    assert (done / "result").read_text(encoding="utf-8") == "2"
    assert not bench.runs_again_for(1)


def failing(bench: Bench, inputs: list[object], work: Callable[[Path], object]) -> str:
    with pytest.raises(InputError) as refused:
        bench.steps.run("train", inputs, lambda out: work(out) and None)
    return str(refused.value)


def test_work_that_cannot_read_an_input_is_not_said_to_write(bench: Bench, tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()

    said = failing(bench, [base], lambda _: (base / "vocab.txt").read_bytes())

    assert said == f"train: cannot read {base / 'vocab.txt'}: {os.strerror(errno.ENOENT)}"
    assert list(bench.folder.iterdir()) == []


def test_work_that_fails_where_either_may_be_meant_says_no_more_than_is_known(bench: Bench, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere" / "file"

    said = failing(bench, [], lambda _: elsewhere.read_bytes())
    assert said == f"train: cannot read or write {elsewhere}: {os.strerror(errno.ENOENT)}"

    said = failing(bench, [], lambda _: UNREADABLE.read_bytes())
    assert re.fullmatch(
        rf"train: cannot read what goes into it or write to {bench.folder}/train-\w+\.unfinished: "
        rf"{os.strerror(errno.EIO)}",
        said,
    )


def test_what_a_library_says_is_said_in_its_own_words(bench: Bench) -> None:
    def load(_: Path) -> None:
        raise OSError("Can't load the tokenizer.\nIs it a folder?")

    assert failing(bench, [], load) == "train: Can't load the tokenizer. Is it a folder?"


def test_what_a_library_says_of_a_full_disk_is_said_as_the_system_does(bench: Bench) -> None:
    def work(out: Path) -> None:
        with told_by_the_system(out):
            raise InputError("llama.cpp does not convert it: 9 requested and 7 written")

    assert failing(bench, [], work) == "llama.cpp does not convert it: 9 requested and 7 written"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    try:
        said = failing(bench, [], work)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert re.fullmatch(r"train: cannot write to \S+\.unfinished: File too large", said)


def stopped_after(seconds: float, stop: Callable[[], object]) -> Callable[[Path], None]:
    def work(out: Path) -> None:
        sleep(seconds)
        (out / "state").write_bytes(b"half")
        stop()

    return work


def interrupt() -> None:
    raise KeyboardInterrupt


def refuse() -> None:
    UNREADABLE.read_bytes()


@pytest.mark.parametrize("stop", [interrupt, refuse])
def test_all_sittings_of_a_step_count(bench: Bench, stop: Callable[[], object]) -> None:
    for _ in range(2):
        with pytest.raises((KeyboardInterrupt, InputError)):
            bench.steps.run("train", [1], stopped_after(0.3, stop))
    done = bench.steps.run("train", [1], lambda _: None)

    assert 0.5 <= bench.steps.seconds["train"] < 60
    assert json.loads((done / "step.json").read_bytes())["seconds"] >= 0.5


def test_a_sitting_that_was_killed_counts_until_what_it_wrote_last(bench: Bench) -> None:
    child = os.fork()
    if not child:
        bench.steps.run("train", [1], stopped_after(0.3, lambda: os.kill(os.getpid(), signal.SIGKILL)))
    os.waitpid(child, 0)
    sleep(0.3)  # nobody works
    bench.steps.run("train", [1], lambda _: None)

    assert bench.steps.seconds["train"] >= 0.25


def test_how_often_a_step_was_interrupted_does_not_count_for_what_it_left(bench: Bench) -> None:
    with pytest.raises(KeyboardInterrupt):
        bench.steps.run("train", [1], stopped_after(0.0, interrupt))
    resumed = bench.steps.run("train", [1], lambda _: None)
    straight = bench.steps.run("train", [2], stopped_after(0.0, lambda: None))

    assert {path.name for path in resumed.iterdir()} == {"state", "step.json"}
    assert digest_of_inputs("convert", [resumed]) == digest_of_inputs("convert", [straight])


def test_a_second_run_in_the_same_folder_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    folder = tmp_path / "quantize" / "doors"
    with alone(folder):
        with pytest.raises(UnavailableError) as refused, alone(folder):
            pass
        with alone(tmp_path / "quantize" / "other"):
            pass
    with alone(folder):
        pass

    assert str(refused.value) == (
        f"{folder}: another run of this recipe is at work in it; wait for its end, or give another --out"
    )


def test_a_run_that_was_killed_keeps_nobody_out(tmp_path: Path) -> None:
    child = os.fork()
    if not child:
        with alone(tmp_path):
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)

    with alone(tmp_path):
        assert (tmp_path / ".lock").is_file()


def test_a_folder_that_cannot_be_locked_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with (
        pytest.raises(
            InputError, match=rf"run: cannot lock {tmp_path}/file/doors/\.lock: {os.strerror(errno.ENOTDIR)}"
        ),
        alone(tmp_path / "file" / "doors"),
    ):
        pass
