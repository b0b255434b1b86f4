import re
import resource
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from models.contracts.errors import ConfigError, InputError, UnavailableError
from quantize.label_file import Given, LabelFile

LABELS = ("benign", "critical")
FIRST = Given("first", "benign", "critical", 0.6, "2026-01-02T03:04:05+00:00")
SECOND = Given("second \u2028 \x1b", "critical", "critical", 0.9, "2026-01-02T03:04:06+00:00")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


@contextmanager
def full_disk(limit_bytes: int) -> Iterator[None]:
    """Let no file grow beyond a size; Python ignores the signal and gets the error."""
    assert signal.getsignal(signal.SIGXFSZ) == signal.SIG_IGN
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_was_appended_is_there_for_the_next_who_opens_it(path: Path) -> None:
    file = LabelFile(path, LABELS)
    file.append(FIRST)
    file.append(SECOND)

    assert LabelFile(path, LABELS).given == file.given == [FIRST, SECOND]
    assert [*msgspec.json.decode(path.read_bytes().splitlines()[0])] == [
        "text",
        "label",
        "model_label",
        "confidence",
        "labelled_at",
    ]


def test_taking_back_leaves_the_bytes_that_were_there(path: Path) -> None:
    before = b'{"label": "benign",  "text": "by hand", "product": "x"}\n\n'
    path.write_bytes(before)
    path.chmod(0o640)
    file = LabelFile(path, LABELS)
    file.append(FIRST)

    assert file.take_back()
    assert path.read_bytes() == before
    assert path.stat().st_mode & 0o777 == 0o640
    assert [one.text for one in file.given] == ["by hand"]
    assert list(path.parent.iterdir()) == [path]


def test_a_line_that_somebody_else_appended_is_not_taken_back(path: Path) -> None:
    file = LabelFile(path, LABELS)
    file.append(FIRST)
    with path.open("ab") as other:
        other.write(msgspec.json.encode(SECOND) + b"\n")
    content = path.read_bytes()

    assert not file.take_back()
    assert path.read_bytes() == content
    assert file.given == [FIRST]


def test_a_last_line_without_its_end_gets_one(path: Path) -> None:
    path.write_bytes(msgspec.json.encode(FIRST))
    LabelFile(path, LABELS).append(SECOND)

    assert LabelFile(path, LABELS).given == [FIRST, SECOND]


def test_a_link_stays_a_link(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.jsonl"
    link.symlink_to(path)
    file = LabelFile(link, LABELS)
    file.append(FIRST)
    file.append(SECOND)
    file.take_back()

    assert link.is_symlink()
    assert LabelFile(path, LABELS).given == [FIRST]


@pytest.mark.parametrize("room", [0, 7])
def test_of_a_label_that_a_full_disk_does_not_take_nothing_stays(path: Path, room: int) -> None:
    file = LabelFile(path, LABELS)
    file.append(FIRST)
    content = path.read_bytes()
    with full_disk(len(content) + room), pytest.raises(UnavailableError, match="the last label was not kept"):
        file.append(SECOND)

    assert path.read_bytes() == content
    assert file.given == [FIRST]
    file.append(SECOND)
    assert LabelFile(path, LABELS).given == [FIRST, SECOND]


def test_what_a_full_disk_does_not_let_take_back_stays(path: Path) -> None:
    file = LabelFile(path, LABELS)
    file.append(FIRST)
    file.append(SECOND)
    content = path.read_bytes()
    with full_disk(5), pytest.raises(UnavailableError, match="was not taken back"):
        file.take_back()

    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]
    assert file.given == [FIRST, SECOND]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"text": "a", "label": "benign"}\n{"text": "b", "la', "line 2: "),
        (b'{"text": "a"}\n', "line 1: Object missing required field `label`"),
        (b'{"text": "a", "label": "routine"}\n', "line 1: label `routine` is none of the release's"),
        (b"\x00" * 300, "line 1: "),
        (b'{"text": "\xff", "label": "benign"}\n', "line 1: "),
        (b"no\n" * 9, "; and 4 more; "),
    ],
)
def test_a_damaged_file_is_refused_and_left_as_it_is(path: Path, content: bytes, said: str) -> None:
    path.write_bytes(content)
    with pytest.raises(InputError) as refused:
        LabelFile(path, LABELS)

    assert said in str(refused.value)
    assert "left it as it is" in str(refused.value)
    assert path.read_bytes() == content


def test_a_file_that_cannot_be_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        LabelFile(tmp_path / "nowhere" / "out.jsonl", LABELS)
    with pytest.raises(ConfigError, match="cannot be read"):
        LabelFile(tmp_path, LABELS)
    with pytest.raises(ConfigError, match=r"/proc/out\.jsonl: cannot be written: .*; give another --out"):
        LabelFile(Path("/proc/out.jsonl"), LABELS)  # whoever asks may write to it, and it takes no files


def test_a_line_that_was_cut_off_is_named_with_what_takes_it_away(path: Path) -> None:
    whole = b'{"text": "a", "label": "benign"}\n'
    path.write_bytes(whole + whole[:-5])
    with pytest.raises(InputError) as refused:
        LabelFile(path, LABELS)
    command = re.search("delete it \\(`(.*)`\\); left it", str(refused.value))

    assert command is not None
    subprocess.run(command[1], shell=True, check=True)  # noqa: S602 - as a person would
    assert path.read_bytes() == whole
    path.write_bytes(b"no JSON\n" + whole)
    with pytest.raises(InputError) as refused:
        LabelFile(path, LABELS)
    assert "delete" not in str(refused.value)


def test_a_byte_order_mark_is_no_part_of_the_first_line_and_stays(path: Path) -> None:
    before = b'\xef\xbb\xbf{"text": "by hand", "label": "benign"}\n'
    path.write_bytes(before)
    file = LabelFile(path, LABELS)
    file.append(FIRST)
    file.take_back()

    assert [one.text for one in file.given] == ["by hand"]
    assert path.read_bytes() == before
