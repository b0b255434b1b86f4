import ctypes
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dataflows.connectors.json_lines import JsonLinesCarrier
from models.contracts.errors import UnavailableError
from tests.conftest import absent

DAY_S = 24 * 3600


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_payloads_are_appended_in_order(tmp_path: Path) -> None:
    carrier = JsonLinesCarrier(tmp_path / "v.jsonl")

    carrier.deliver([b"1\n", b"2\n3\n"])
    carrier.deliver([b"4\n"])

    assert (tmp_path / "v.jsonl").read_bytes() == b"1\n2\n3\n4\n"


def test_missing_folders_are_made(tmp_path: Path) -> None:
    JsonLinesCarrier(tmp_path / "a" / "b" / "v.jsonl").deliver([b"1\n"])

    assert (tmp_path / "a" / "b" / "v.jsonl").read_bytes() == b"1\n"


@pytest.mark.parametrize("torn", [b"2", b'{"id": "half', b"x" * 200_000])
def test_a_line_that_a_crash_tore_is_cut_off_before_anything_follows(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "v.jsonl"
    path.write_bytes(b"1\n" + torn)

    JsonLinesCarrier(path).deliver([b"3\n"])

    assert path.read_bytes() == b"1\n3\n"


def test_a_file_that_is_one_torn_line_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "v.jsonl"
    path.write_bytes(b"half a line")

    JsonLinesCarrier(path).deliver([b"1\n"])

    assert path.read_bytes() == b"1\n"


def test_the_file_turns_over_by_size_between_deliveries(tmp_path: Path) -> None:
    carrier = JsonLinesCarrier(tmp_path / "v.jsonl", rotate_bytes=4, clock=lambda: 1_700_000_000.0)

    for n in range(5):
        carrier.deliver([b"%d\n" % n])

    assert names(tmp_path) == ["v.000001.20231114T221320Z.jsonl", "v.000002.20231114T221320Z.jsonl", "v.jsonl"]
    assert (tmp_path / "v.000001.20231114T221320Z.jsonl").read_bytes() == b"0\n1\n"
    assert (tmp_path / "v.jsonl").read_bytes() == b"4\n"


def test_the_file_turns_over_at_midnight_though_the_gateway_restarted_since(tmp_path: Path) -> None:
    path = tmp_path / "v.jsonl"
    noon = 19_000 * DAY_S + DAY_S // 2

    def write_at(now: int, line: bytes) -> None:
        carrier = JsonLinesCarrier(path, clock=lambda: now)
        carrier.deliver([line])
        carrier.close()
        os.utime(path, (now, now))

    write_at(noon, b"1\n")
    write_at(noon + DAY_S // 2 - 1, b"2\n")
    assert names(tmp_path) == ["v.jsonl"]
    write_at(noon + DAY_S // 2, b"3\n")

    assert path.read_bytes() == b"3\n"
    assert len(names(tmp_path)) == 2


def test_a_clock_that_steps_back_neither_turns_over_nor_overwrites(tmp_path: Path) -> None:
    path = tmp_path / "v.jsonl"
    clock = [1_700_000_000.0]
    carrier = JsonLinesCarrier(path, rotate_bytes=2, clock=lambda: clock[0])
    for n in range(4):
        carrier.deliver([b"%d\n" % n])
        clock[0] -= 10 * DAY_S

    assert [(tmp_path / name).read_bytes() for name in names(tmp_path)] == [b"0\n", b"1\n", b"2\n", b"3\n"]


def test_only_the_newest_turned_over_files_are_kept(tmp_path: Path) -> None:
    carrier = JsonLinesCarrier(tmp_path / "v.jsonl", rotate_bytes=1, keep=2, clock=lambda: 1_700_000_000.0)
    (tmp_path / "v.notes.jsonl").write_bytes(b"not ours")

    for n in range(6):
        carrier.deliver([b"%d\n" % n])

    assert names(tmp_path) == [
        "v.000004.20231114T221320Z.jsonl",
        "v.000005.20231114T221320Z.jsonl",
        "v.jsonl",
        "v.notes.jsonl",
    ]


def test_keep_nought_keeps_every_file(tmp_path: Path) -> None:
    carrier = JsonLinesCarrier(tmp_path / "v.jsonl", rotate_bytes=1, keep=0)

    for n in range(4):
        carrier.deliver([b"%d\n" % n])

    assert len(names(tmp_path)) == 4


@pytest.mark.parametrize("away", ["moved", "deleted", "folder"])
def test_a_file_that_is_moved_or_deleted_from_outside_is_begun_anew(tmp_path: Path, away: str) -> None:
    path = tmp_path / "out" / "v.jsonl"
    carrier = JsonLinesCarrier(path)
    carrier.deliver([b"1\n"])
    if away == "moved":
        path.rename(tmp_path / "elsewhere")
    elif away == "deleted":
        path.unlink()
    else:
        path.parent.rename(tmp_path / "elsewhere")

    carrier.deliver([b"2\n"])

    assert path.read_bytes() == b"2\n"


def test_two_outputs_with_one_path_are_told_apart(tmp_path: Path) -> None:
    first, second = JsonLinesCarrier(tmp_path / "v.jsonl"), JsonLinesCarrier(tmp_path / "v.jsonl")
    first.deliver([b"1\n"])

    with pytest.raises(UnavailableError, match=r"v\.jsonl: cannot be written: another output or another gateway"):
        second.deliver([b"2\n"])

    first.close()
    second.deliver([b"2\n"])
    assert (tmp_path / "v.jsonl").read_bytes() == b"1\n2\n"


def test_a_path_that_is_no_file_is_refused_by_name(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "v.jsonl")

    with pytest.raises(UnavailableError, match="found something that is not a file"):
        JsonLinesCarrier(tmp_path / "v.jsonl").deliver([b"1\n"])


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", str(folder).encode(), b"tmpfs", 0, b"size=64k") != 0:
        absent(f"tiny disk: mounting a tmpfs is refused: {errno.errorcode[ctypes.get_errno()]}")
    yield folder
    libc.umount2(str(folder).encode(), 2)


def test_a_full_disk_leaves_whole_lines_and_delivery_goes_on_once_there_is_room(tiny_disk: Path) -> None:
    path = tiny_disk / "v.jsonl"
    carrier = JsonLinesCarrier(path)
    carrier.deliver([b"1\n"])
    (tiny_disk / "other").write_bytes(b"x" * 40_000)

    with pytest.raises(UnavailableError, match=r"v\.jsonl: cannot be written: No space left on device"):
        carrier.deliver([b"y" * 60_000 + b"\n"])
    assert path.read_bytes() == b"1\n"

    (tiny_disk / "other").unlink()
    carrier.deliver([b"2\n"])
    assert path.read_bytes() == b"1\n2\n"
