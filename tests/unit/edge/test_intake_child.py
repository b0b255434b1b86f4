"""The intake's keeper: what it says of an intake that cannot start, and that it never gives up on one that died."""

import os
import resource
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

import pytest

from dataflows.running import logs
from edge.intake_child import IntakeChild
from models.contracts.errors import ConfigError, UnavailableError
from tests.real.intake import wait_until


@contextmanager
def child(directory: Path, name: str = "tcp", port: int = 0) -> Iterator[IntakeChild]:
    config = directory / "edge.toml"
    config.write_text(
        f'[gateway]\nstate_dir = "{directory}/state"\n'
        f'[[sources]]\nkind = "syslog-tcp"\nname = "{name}"\nport = {port}\n'
    )
    lock = os.open(directory / "lock", os.O_CREAT | os.O_RDWR)
    intake = IntakeChild(config, lock)
    try:
        yield intake
    finally:
        intake.stop()
        os.close(lock)


def test_a_source_may_have_any_name_that_the_types_allow(tmp_path: Path) -> None:
    with child(tmp_path, name="event") as intake:
        assert set(intake.start()) == {"event"}


def test_what_is_wrong_with_the_configuration_is_told_from_what_may_pass(tmp_path: Path) -> None:
    with child(tmp_path, port=70_000) as intake, pytest.raises(ConfigError, match=r"sources.*port"):
        intake.start()
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        child(tmp_path, port=taken.getsockname()[1]) as intake,
        pytest.raises(UnavailableError, match="in use"),
    ):
        intake.start()
    (tmp_path / "state" / "spool.sqlite3").unlink(missing_ok=True)
    (tmp_path / "state" / "spool.sqlite3").mkdir(parents=True)
    with child(tmp_path) as intake, pytest.raises(UnavailableError, match=r"spool\.sqlite3"):
        intake.start()


def test_an_intake_that_dies_while_no_process_can_be_made_comes_back_when_one_can(tmp_path: Path) -> None:
    said = StringIO()
    logs.configure(said)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        with child(tmp_path) as intake:
            intake.start()
            first = intake.pid
            assert first is not None
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
            os.kill(first, signal.SIGKILL)
            wait_until(lambda: "event=intake_unavailable" in said.getvalue(), "a failed start")
            assert "Too many open files" in said.getvalue()
            assert not intake.listening
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            wait_until(lambda: intake.listening, "an intake that listens again")
            assert intake.pid != first
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        logs.configure()
