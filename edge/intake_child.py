"""Keeps the intake process running: starts it, learns where it listens, starts it again when it dies."""

import os
import select
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Annotated, Literal

import structlog
from msgspec import Meta, Struct

from models.contracts.errors import ConfigError, InputError, UnavailableError
from models.contracts.scalars import Name
from models.contracts.wire import decode_json

_READY_WITHIN_S = 30.0  # importing takes a second; a loaded gateway gets more
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 10.0
_STEADY_S = 60.0  # an intake that lived so long starts the backoff afresh

log = structlog.get_logger()


class _Announcement(Struct, frozen=True):
    """The one line that the intake prints."""

    ready: bool
    listening: dict[Name, Annotated[int, Meta(ge=0, le=65535)]] = {}
    error: str = ""
    kind: Literal["config", "unavailable"] = "unavailable"  # whether another start may help


class IntakeChild:
    """`python -m edge.intake` as a child that outlives neither us nor its usefulness.

    Its lifeline is a pipe whose write end only we hold: however we end, it reads the end of the pipe, commits what it
    has accepted and leaves.
    """

    def __init__(self, config: Path, lock_fd: int) -> None:
        self._config = config
        self._lock_fd = lock_fd
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline = -1
        self._guard = threading.Lock()  # around the two above and `_stopping`
        self._stopping = threading.Event()
        self._ready = False
        self._listening: dict[str, int] = {}
        self._watcher = threading.Thread(target=self._watch, name="intake-watch", daemon=True)

    def start(self) -> dict[str, int]:
        """Start it and return the port of each listening source.

        Raises:
            ConfigError: it cannot listen as configured, and says why.
            UnavailableError: it cannot listen now; another start may help.
        """
        problem = self._launch()
        if problem is not None:
            self.stop()
            raise problem
        log.info("intake_listening", ports=self._listening)
        self._watcher.start()
        return dict(self._listening)

    @property
    def listening(self) -> bool:
        """Whether it runs and has said that it listens."""
        return self._ready and self.pid is not None

    @property
    def pid(self) -> int | None:
        """The process that listens, while it lives."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def let_go(self) -> None:
        """Close the lifeline: it accepts nothing more, commits and leaves. Does not wait."""
        self._stopping.set()
        with self._guard:
            if self._lifeline >= 0:
                os.close(self._lifeline)
                self._lifeline = -1

    def stop(self, timeout_s: float = 3.0) -> None:
        """Let go and wait; kill what has not left by then, which loses nothing that was acknowledged."""
        self.let_go()
        process = self._process
        if process is None:
            return
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            log.warning("intake_killed", pid=process.pid, waited_s=timeout_s)
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()

    def _launch(self) -> ConfigError | UnavailableError | None:
        """Start one; return what is wrong, or nothing."""
        try:
            process = self._spawn()
        except OSError as error:  # no descriptor, no memory or no process to be had: that passes
            return UnavailableError(f"intake: cannot be started: {error}; will try again")
        if process is None:
            return UnavailableError("intake: not started, for the gateway is stopping")
        try:
            announcement = _first_line(process)
        except OSError as error:
            announcement = _Announcement(ready=False, error=f"intake: cannot be heard: {error}; killed it")
        if announcement.ready:
            self._listening, self._ready = announcement.listening, True
            return None
        if process.poll() is None:
            process.kill()
        process.wait()
        reason = (
            announcement.error or f"intake: exited with {process.returncode} before it was ready; see the log above"
        )
        return ConfigError(reason) if announcement.kind == "config" else UnavailableError(reason)

    def _spawn(self) -> "subprocess.Popen[bytes] | None":
        """Make the process and its lifeline, or leave no trace; nothing where we are stopping."""
        read_end, write_end = os.pipe()
        try:
            with self._guard:
                if self._stopping.is_set():
                    os.close(write_end)
                    return None
                try:
                    process = subprocess.Popen(
                        [sys.executable, "-m", "edge.intake", str(self._config), "--lifeline", str(read_end)],
                        stdout=subprocess.PIPE,
                        pass_fds=(read_end, self._lock_fd),
                    )
                except OSError:
                    os.close(write_end)
                    raise
                before, self._process = self._process, process
                if self._lifeline >= 0:
                    os.close(self._lifeline)
                self._lifeline = write_end
        finally:
            os.close(read_end)
        if before is not None and before.stdout is not None:
            before.stdout.close()
        return process

    def _watch(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            started = time.monotonic()
            process = self._process
            if process is None:
                return
            code = process.wait()
            self._ready = False
            if time.monotonic() - started > _STEADY_S:
                pause_s = _FIRST_PAUSE_S
            if self._stopping.wait(pause_s):
                return
            log.warning("intake_restarted", exit_code=code, after_s=pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            problem = self._launch()
            if problem is not None:
                log.error("intake_unavailable", reason=str(problem), again_in_s=pause_s)
            else:
                log.info("intake_listening", ports=self._listening)


def _first_line(process: subprocess.Popen[bytes]) -> _Announcement:
    """Read the announcement, however it is cut into pieces, within the time a start may take."""
    if process.stdout is None:
        return _Announcement(ready=False, error="intake: started without an output")
    fd, line, deadline = process.stdout.fileno(), b"", time.monotonic() + _READY_WITHIN_S
    while not line.endswith(b"\n"):
        readable, _, _ = select.select([fd], [], [], max(0.0, deadline - time.monotonic()))
        if not readable:
            return _Announcement(ready=False, error=f"intake: not ready after {_READY_WITHIN_S:.0f} s; killed it")
        piece = os.read(fd, 65536)
        if not piece:
            return _Announcement(ready=False)
        line += piece
    try:
        return decode_json(line, _Announcement, "intake")
    except InputError as error:
        return _Announcement(ready=False, error=str(error))
