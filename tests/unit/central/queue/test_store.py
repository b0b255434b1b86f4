"""The queue on SQLite: all that every database owes, and what only a file can get wrong."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from central.queue.store import Store, Wanted
from tests.checks.queue_store import CHECKS, MINUTE, NOW, Check, put, waiting

CLAIM_ALL = """
import sys
from central.queue.store import Store, Wanted
store = Store(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
while (item := store.claim_next(Wanted(), sys.argv[2], 1_000_000, 60_000)) is not None:
    print(item.id, flush=True)
"""


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'queue.sqlite3'}"


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    opened = Store(url)
    yield opened
    opened.close()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_queue_in_a_file(check: Check, store: Store) -> None:
    check(store)


def test_processes_that_claim_at_once_never_get_the_same(store: Store, url: str) -> None:
    put(store, *(waiting(id=f"o.{number}") for number in range(60)))
    command = [sys.executable, "-c", CLAIM_ALL, url]
    claimers = [
        subprocess.Popen([*command, by], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for by in ("alice", "bob", "carol")
    ]
    try:
        assert [claimer.stdout.readline() for claimer in claimers] == ["ready\n"] * 3
        for claimer in claimers:
            claimer.stdin.write("go\n")
            claimer.stdin.flush()
        claimed = [item_id for claimer in claimers for item_id in claimer.communicate(timeout=110)[0].split()]
    finally:
        for claimer in claimers:
            claimer.kill()
            claimer.wait()

    assert sorted(claimed) == sorted(f"o.{number}" for number in range(60))
    assert store.page(Wanted(view="claimed"), NOW).total == 60
    assert store.page(Wanted(view="claimed"), NOW + MINUTE).total == 0
