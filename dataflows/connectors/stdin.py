"""Lines of a pipe or a terminal into the group commit, until its end."""

import os
import select
import threading
import time

import structlog

from dataflows.connectors.group_commit import Delivery, GroupCommit, Refusal
from dataflows.connectors.lines import LineCutter
from dataflows.connectors.spool import Arrival

_PIECE_BYTES = 64 << 10
_POLL_S = 0.2  # how long an idle thread takes to notice that it should end

log = structlog.get_logger()


class StandardInputReader:
    """One thread; what it does not read stays in the pipe, and whoever writes there waits."""

    def __init__(self, name: str, max_event_bytes: int, commit: GroupCommit, descriptor: int = 0) -> None:
        self._name = name
        self._commit = commit
        self._descriptor = descriptor
        self._cutter = LineCutter(max_event_bytes)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"stdin-{name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        poller = select.poll()
        poller.register(self._descriptor, select.POLLIN)
        while not self._stopping.is_set():
            if not self._commit.wait_for_room(self._name, _POLL_S) or not poller.poll(_POLL_S * 1000):
                continue
            piece = os.read(self._descriptor, _PIECE_BYTES)
            self._hand_over(self._cutter.feed(piece) if piece else self._cutter.flush())
            if not piece:
                log.info("standard_input_ended", source=self._name)
                return
        # A line that has begun will be whole for nobody: the rest of it stays in the pipe.
        self._hand_over(self._cutter.flush())

    def _hand_over(self, lines: list[tuple[int, bytes]]) -> None:
        if lines:
            records = [record for _, record in lines]
            arrival = Arrival(self._name, time.time_ns() // 1_000_000, records)
            self._commit.offer(Delivery(arrival, Refusal.HOLD))
