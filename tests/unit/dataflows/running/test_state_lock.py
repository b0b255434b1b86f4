import subprocess
import sys
from pathlib import Path

import pytest

from dataflows.running.state_lock import StateLock, is_held
from models.contracts.errors import ConfigError, UnavailableError

HOLD = """
import sys
from pathlib import Path
from dataflows.running.state_lock import StateLock
lock = StateLock(Path(sys.argv[1]))
lock.acquire()
print("held", flush=True)
sys.stdin.read()
"""

HOLD_AND_LEAVE_A_CHILD = """
import subprocess, sys
from pathlib import Path
from dataflows.running.state_lock import StateLock
lock = StateLock(Path(sys.argv[1]))
lock.acquire()
child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], pass_fds=(lock.fileno(),))
print("held", flush=True)
"""


def test_a_second_gateway_is_refused_and_told_who_holds_the_directory(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"held\n"
        with pytest.raises(ConfigError, match=rf"lock: held by process {first.pid};.*`state_dir`"):
            StateLock(tmp_path).acquire()
        first.kill()


def test_a_killed_gateway_leaves_no_lock(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"held\n"
        first.kill()
        first.wait()
        lock = StateLock(tmp_path)
        lock.acquire()
        lock.release()


def test_a_gateway_waits_until_the_intake_of_a_dead_one_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dataflows.running.state_lock._PATIENCE_S", 0.3)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD_AND_LEAVE_A_CHILD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"held\n"
        first.wait()
        lock = StateLock(tmp_path)
        with pytest.raises(UnavailableError, match=rf"intake of process {first.pid}, which is gone"):
            lock.acquire()
        assert first.stdin is not None
        first.stdin.close()
        monkeypatch.setattr("dataflows.running.state_lock._PATIENCE_S", 10.0)
        lock.acquire()
        lock.release()


def test_a_lock_that_cannot_be_opened_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()
    with pytest.raises(ConfigError, match=r"lock: cannot be opened: Is a directory; .*`state_dir`"):
        StateLock(tmp_path)
    with pytest.raises(ConfigError, match=r"lock: cannot be opened: Is a directory"):
        is_held(tmp_path)


def test_who_only_asks_leaves_no_lock_file_and_writes_into_none(tmp_path: Path) -> None:
    assert not is_held(tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / "lock").write_text("4711")
    assert not is_held(tmp_path)
    assert (tmp_path / "lock").read_text() == "4711"


def test_who_only_asks_is_told_of_a_gateway_and_does_not_disturb_it(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"held\n"
        assert is_held(tmp_path)
        with pytest.raises(ConfigError, match=rf"held by process {first.pid}"):
            StateLock(tmp_path).acquire()
        first.kill()
