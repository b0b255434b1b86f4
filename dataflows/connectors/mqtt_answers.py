"""Verdicts of the centre on our events, asked for by MQTT, into the group commit.

How far we have them is written with them, in one transaction: after a crash of ours, of the broker's or of a bridge's
the next question goes on exactly there. Only one is under way at a time, and it waits at the bridge until there is
something to say.
"""

import threading
import time
from contextlib import suppress
from random import Random
from secrets import token_bytes
from time import monotonic

import structlog

from dataflows.backoff import Backoff
from dataflows.connectors.group_commit import Delivery, GroupCommit, Refusal
from dataflows.connectors.mqtt_connection import Broker, Connection, marks, translated
from dataflows.connectors.spool import Arrival
from dataflows.connectors.uplink import (
    DOWNLINK,
    HOLD_S,
    Offsets,
    decode_answers,
    decode_wanted,
    encode_wanted,
    topic_of,
)
from models.contracts.errors import InputError, UnavailableError

_TURN_S = 0.1
_SPARE_S = 10.0  # for an answer to come, beyond the time that a bridge holds it back
_APART_S = 0.5  # an answer without verdicts that comes sooner says that the bridge is leaving
_ID_BYTES = 12
_CLOSED_WITHIN_S = 1.0
_BACKOFF = Backoff()

log = structlog.get_logger()


class Answers(Broker, frozen=True, kw_only=True):
    """Whom to ask, and who we are there."""

    name: str  # of the source
    root: str
    gateway: str


class AnswersFetcher:
    """One thread that asks, waits, and hands over what comes."""

    def __init__(self, answers: Answers, commit: GroupCommit, mark: bytes | None) -> None:
        """Prepare to go on where an earlier process came to, by the mark that it left in the spool."""
        self._answers = answers
        self._commit = commit
        self._have: Offsets = {}
        if mark is not None:
            with suppress(InputError):  # of another kind of source that was called so: we begin at the beginning
                self._have = decode_wanted(mark)
        self._ask = topic_of(answers.root, answers.gateway, DOWNLINK.ask)
        self._answer = topic_of(answers.root, answers.gateway, DOWNLINK.answer)
        self._stopping = threading.Event()
        self._problem = ""
        self._thread = threading.Thread(target=self._run, name=f"answers-{answers.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask no more; what came and is not on disk comes again."""
        self._stopping.set()

    def close(self) -> None:
        self._thread.join(_CLOSED_WITHIN_S)

    def _run(self) -> None:
        chance = Random()  # noqa: S311 - jitter, not a secret
        delays = _BACKOFF.delays(chance)
        while not self._stopping.is_set():
            try:
                with translated(self._answers, "asking again"):
                    self._converse()
            except UnavailableError as error:
                if not self._problem:
                    delays = _BACKOFF.delays(chance)  # it had worked
                self._tell(str(error))
                self._stopping.wait(next(delays))

    def _converse(self) -> None:
        connection = Connection(self._answers, heard=True)
        try:
            connection.open([self._answer])
            while not self._stopping.is_set():
                asked_at = monotonic()
                payload = self._asked(connection)
                if payload is None:
                    return
                have, lines = decode_answers(payload)
                self._problem = ""
                if not self._keep(connection, have, lines):
                    return
                if not lines and monotonic() - asked_at < _APART_S:
                    self._stopping.wait(_APART_S)
        except InputError as error:
            raise ConnectionError(f"a bridge answers what is no answer: {error}") from error
        finally:
            with suppress(OSError):
                connection.close()

    def _asked(self, connection: Connection) -> bytes | None:
        """Ask, and return the answer; None where we are to stop."""
        attempt, wait_s = token_bytes(_ID_BYTES), HOLD_S + _SPARE_S
        deadline = monotonic() + wait_s
        properties = marks(correlation=attempt, expiry_s=int(_SPARE_S))
        connection.send(self._ask, encode_wanted(self._have), 0, properties=properties)
        while not self._stopping.is_set():
            connection.turn(_TURN_S)
            while connection.incoming:
                message = connection.incoming.popleft()
                if message.correlation == attempt:
                    return message.payload
            if monotonic() > deadline:
                raise TimeoutError(f"no bridge has answered within {wait_s:g} s; look at its log")
        return None

    def _keep(self, connection: Connection, have: Offsets, lines: list[bytes]) -> bool:
        """Return whether what came is on disk; False where we are to stop first."""
        if have == self._have and not lines:
            return True
        stored = threading.Event()
        arrival = Arrival(self._answers.name, time.time_ns() // 1_000_000, lines)
        self._commit.offer(Delivery(arrival, Refusal.REPEAT, stored.set, mark=encode_wanted(have)))
        while not stored.wait(_TURN_S):
            if self._stopping.is_set():
                return False
            connection.turn(0)  # a full spool may take its time, and the broker wants to hear of us
        self._have = have
        return True

    def _tell(self, problem: str) -> None:
        """One line for each new problem; the same one again is in the counters."""
        self._commit.happened(self._answers.name, "connects-failed")
        if problem != self._problem:
            log.warning("answers_wait", source=self._answers.name, reason=problem, action="trying again")
        self._problem = problem
