"""What the cache keeps on the disk: taken over once and under the same terms, and gone for good after that."""

import os
from pathlib import Path

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from dataflows.cache.snapshot import Made
from dataflows.running.cache_files import audit_secret, forget_kept, keep, snapshot_path, take_over, warm
from models.contracts.policy import CacheRules, Policy
from models.contracts.release import Release
from tests.fakes.caches import cache, teach
from tests.fakes.tiny_models import RELEASE, TASK


class Disk:
    """What a loss of power leaves of a directory's names: those that it had when it was last synchronised."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._names: dict[Path, set[str]] = {}
        self._fsync = os.fsync
        monkeypatch.setattr(os, "fsync", self._note)

    def _note(self, descriptor: int) -> None:
        self._fsync(descriptor)
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path.is_dir():
            self._names[path] = {each.name for each in path.iterdir()}

    def holds(self, path: Path) -> bool:
        return path.name in self._names.get(path.parent, set())


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def made(release: Release = RELEASE, context_tokens: int = 1024) -> Made:
    return Made.under("abc", release, context_tokens, CacheRules())


def kept(state_dir: Path, terms: Made) -> bytes:
    """Leave a cache with one entry as a graceful stop does; return the gateway's secret."""
    secret = audit_secret(state_dir)
    taught = cache()
    teach(taught, "door 7 opened")
    keep(taught, state_dir, secret, terms)
    return secret


def test_what_was_kept_is_taken_over_once(tmp_path: Path) -> None:
    secret = kept(tmp_path, made())
    first, second = cache(), cache()
    warm(first, tmp_path, secret, made())
    take_over(first, tmp_path)
    warm(second, tmp_path, secret, made())
    take_over(second, tmp_path)
    assert (len(first), len(second)) == (1, 0)


def test_a_start_that_fails_leaves_what_was_kept_to_the_next_one(tmp_path: Path) -> None:
    secret = kept(tmp_path, made())
    failed, begun = cache(), cache()
    warm(failed, tmp_path, secret, made())
    warm(begun, tmp_path, secret, made())
    assert (len(failed), len(begun)) == (1, 1)


def test_a_cache_whose_file_cannot_be_taken_away_begins_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = kept(tmp_path, made())
    begun = cache()
    warm(begun, tmp_path, secret, made())

    def refuse(_path: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "unlink", refuse)
    with capture_logs() as said:
        take_over(begun, tmp_path)
    begun.follow(RELEASE, Policy())  # as with the next events
    assert [each["event"] for each in said] == ["cache_discarded"]
    assert len(begun) == 0


SWAPPED = replace(RELEASE, task=replace(TASK, labels=TASK.labels[::-1]))


@pytest.mark.parametrize("terms", [made(SWAPPED), made(context_tokens=512)])
def test_what_was_kept_under_another_task_file_or_context_size_for_one_model_file_is_discarded(
    tmp_path: Path, terms: Made
) -> None:
    secret = kept(tmp_path, made())
    begun = cache()
    with capture_logs() as said:
        warm(begun, tmp_path, secret, terms)
    assert len(begun) == 0
    assert [each["event"] for each in said] == ["cache_discarded"]
    assert not snapshot_path(tmp_path).exists()


def test_what_an_older_version_kept_is_discarded(tmp_path: Path) -> None:
    secret = kept(tmp_path, made())
    path = snapshot_path(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"headwater-cache/2", b"headwater-cache/1"))
    begun = cache()
    with capture_logs() as said:
        warm(begun, tmp_path, secret, made())
    assert [(each["event"], "another version" in each["reason"]) for each in said] == [("cache_discarded", True)]
    assert (len(begun), path.exists()) == (0, False)


def test_what_was_kept_outlasts_a_loss_of_power(tmp_path: Path, disk: Disk) -> None:
    kept(tmp_path, made())
    assert disk.holds(snapshot_path(tmp_path))
    assert disk.holds(tmp_path / "audit-secret")


@pytest.mark.parametrize("genuine", [True, False])
def test_no_loss_of_power_brings_back_what_was_taken_over_or_discarded(
    tmp_path: Path, disk: Disk, *, genuine: bool
) -> None:
    secret = kept(tmp_path, made())
    begun = cache()
    warm(begun, tmp_path, secret if genuine else bytes(32), made())
    take_over(begun, tmp_path)
    assert bool(len(begun)) is genuine
    assert not disk.holds(snapshot_path(tmp_path))


def test_no_loss_of_power_brings_back_what_was_forgotten(tmp_path: Path, disk: Disk) -> None:
    kept(tmp_path, made())
    assert forget_kept(tmp_path, None)
    assert not disk.holds(snapshot_path(tmp_path))
