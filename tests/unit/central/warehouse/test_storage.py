from pathlib import Path

import pyarrow as pa
import pytest

from central.warehouse.storage import is_unfinished, open_storage
from models.contracts.errors import ConfigError, UnavailableError


def test_a_file_that_is_put_is_there_whole_and_another_of_its_name_takes_its_place(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path / "deep" / "warehouse"))

    storage.put("verdicts/day=1/a", pa.py_buffer(b"one"))
    storage.put("verdicts/day=1/a", pa.py_buffer(b"other"))

    assert [(found.name, found.bytes) for found in storage.files("verdicts")] == [("verdicts/day=1/a", 5)]
    assert (tmp_path / "deep" / "warehouse" / "verdicts" / "day=1" / "a").read_bytes() == b"other"


def test_a_folder_that_is_not_there_has_no_files(tmp_path: Path) -> None:
    assert open_storage(str(tmp_path / "nothing")).files("verdicts") == []


def test_a_file_is_nobody_elses_to_read(tmp_path: Path) -> None:
    open_storage(str(tmp_path)).put("a", pa.py_buffer(b""))

    assert (tmp_path / "a").stat().st_mode & 0o007 == 0


def test_what_is_deleted_is_gone_and_deleting_it_again_is_no_trouble(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    storage.put("a", pa.py_buffer(b""))

    storage.delete("a")
    storage.delete("a")

    assert storage.files("") == []


def test_a_disk_that_takes_nothing_is_an_outage_that_leaves_nothing_behind(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    (tmp_path / "taken").mkdir()  # where the file is to be

    with pytest.raises(UnavailableError, match=r"taken cannot be written: Is a directory"):
        storage.put("taken", pa.py_buffer(b"content"))

    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_a_folder_that_is_none_is_an_outage(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(UnavailableError, match=r"warehouse .*file: a cannot be written: File exists"):
        open_storage(str(tmp_path / "file")).put("a", pa.py_buffer(b""))


def test_a_relative_folder_stays_where_it_was_when_somebody_changes_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    storage = open_storage("warehouse")
    monkeypatch.chdir("/")

    storage.put("a", pa.py_buffer(b""))

    assert [path.name for path in tmp_path.iterdir()] == ["warehouse"]


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("gs://bucket/prefix", "gs://bucket/prefix"),
        ("s3://", "s3://"),
        ("s3://bucket?endpoit=http://host", "endpoit"),
        ("s3://bucket?endpoint=host:9000", "endpoint=host"),
        ("s3://key:secret@bucket/prefix", "one with a password in it"),
    ],
)
def test_an_url_of_no_warehouse_says_what_is_wanted(url: str, found: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"warehouse: found .*{found}.*, wanted a folder or s3://bucket/prefix"
    ) as told:
        open_storage(url)

    assert "secret" not in str(told.value)


def test_a_bucket_is_looked_for_under_its_prefix() -> None:
    storage = open_storage("s3://bucket/some/prefix/?endpoint=http://127.0.0.1:1&region=eu-central-1")

    assert storage.path("verdicts/a") == "bucket/some/prefix/verdicts/a"
    assert storage.filesystem.region == "eu-central-1"
    assert not storage.is_local


def test_what_a_crash_leaves_is_known_by_its_name() -> None:
    assert is_unfinished("verdicts/day=2026-01-31/.unfinished-7-part-0.parquet")
    assert not is_unfinished("verdicts/day=2026-01-31/part-0.parquet")
