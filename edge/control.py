"""The socket `control` in the state directory: `python -m edge cache` asks there about the cache of a running gateway.

One question and one answer a connection, each one JSON text up to the end of the stream; one connection at a time, and
none for longer than a few seconds. The file is for the gateway's own user, because templates are log text. A path of
any length will do: it is reached through the directory, which is open, since the kernel takes 107 bytes at most.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from time import monotonic, time
from typing import TypeVar

import msgspec
import structlog

from dataflows.cache.verdict_cache import VerdictCache
from edge.cache_answers import (
    Answer,
    Explain,
    Explanation,
    Forget,
    Forgotten,
    List,
    Listing,
    Problem,
    Question,
    Terms,
    explanation,
    listing,
)
from models.classifier import Classifier, Current
from models.contracts.errors import UnavailableError
from models.contracts.policy import Policy
from models.contracts.wire import NOT_DECODED

_NAME = "control"
_WAITING = 8  # connections that the kernel keeps for us; others wait to connect
_MOST_QUESTION_BYTES = 64 << 10
_MOST_ANSWER_BYTES = 64 << 20
_CONVERSE_WITHIN_S = 2.0
_ANSWER_WITHIN_S = 10.0  # what whoever asks waits for, with others in front
_CLOSE_WITHIN_S = 0.5
_AGAIN_S = 0.2
_PIECE_BYTES = 64 << 10

A = TypeVar("A", Listing, Explanation, Forgotten)

_questions: msgspec.json.Decoder[Question] = msgspec.json.Decoder(Question)
_answers: msgspec.json.Decoder[Answer] = msgspec.json.Decoder(Answer)
_encoder = msgspec.json.Encoder()

log = structlog.get_logger()


def socket_path(state_dir: Path) -> Path:
    """Return where a running gateway answers."""
    return state_dir / _NAME


class ControlServer:
    """Answers from a thread of its own; the flow never waits for it."""

    def __init__(
        self, state_dir: Path, cache: VerdictCache, classifier: Current[Classifier], policy: Current[Policy]
    ) -> None:
        """Open the socket. The caller holds the state lock: what is there already is of a gateway that was killed.

        A disk that does not take a socket costs the answers, and no event.
        """
        self._path = socket_path(state_dir)
        self._cache = cache
        self._classifier = classifier
        self._policy = policy
        self._closed = Event()
        self._thread = Thread(target=self._serve, name="cache-control", daemon=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._path.unlink(missing_ok=True)
            os.fchmod(self._socket.fileno(), 0o600)  # Linux makes the file with the mode that the socket has
            with _short(state_dir) as directory:
                self._socket.bind(f"{directory}/{_NAME}")
            self._socket.listen(_WAITING)
        except OSError as error:
            self._closed.set()
            log.warning(
                "control_not_open",
                path=str(self._path),
                reason=str(error.strerror or error),
                action="went on; `edge cache` cannot ask this gateway",
            )

    def start(self) -> None:
        if not self._closed.is_set():
            self._thread.start()

    def close(self) -> None:
        """Answer no more; nothing is forgotten from here on."""
        if not self._closed.is_set():
            self._closed.set()
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)  # wakes who waits in `accept`
            with suppress(OSError):
                self._path.unlink(missing_ok=True)
        if self._thread.is_alive():
            self._thread.join(_CLOSE_WITHIN_S)
        self._socket.close()

    def _serve(self) -> None:
        while not self._closed.is_set():
            try:
                connection, _ = self._socket.accept()
            except OSError:  # closed, or out of descriptors for now
                self._closed.wait(_AGAIN_S)
                continue
            with connection:
                try:
                    self._converse(connection)
                except OSError:
                    pass  # who hangs up early wants no answer
                except Exception:
                    log.exception("control_failed", action="went on; whoever asked has no answer")

    def _converse(self, connection: socket.socket) -> None:
        answer: Answer
        try:
            asked = _questions.decode(_receive(connection, _MOST_QUESTION_BYTES, _CONVERSE_WITHIN_S))
            answer = self._answer(asked)
        except (*NOT_DECODED, UnavailableError) as error:
            answer = Problem(str(error))
        connection.settimeout(_CONVERSE_WITHIN_S)
        connection.sendall(_encoder.encode(answer))

    def _answer(self, asked: Question) -> Answer:
        match asked:
            case List():
                return listing(asked, dict(self._cache.listing()), dict(self._cache.refusals()), self._terms())
            case Explain():
                return explanation(asked.body, *self._cache.explain(asked.body), self._terms())
            case Forget():
                return self._forget(asked.name)

    def _terms(self) -> Terms:
        return Terms(self._classifier.get().release, self._policy.get(), time())

    def _forget(self, name: str | None) -> Forgotten:
        if self._closed.is_set():
            raise UnavailableError("the gateway stops; ask again when it has")
        cache = self._cache
        if name is not None:
            names = {entry.name for _, entry in cache.listing()} | {refusal.name for _, refusal in cache.refusals()}
            if name not in names:
                return Forgotten(known=False)
        cache.forget(name or "")
        log.info("cache_forgets", template=name or "all", action="with the next events")
        return Forgotten(known=True)


def ask(state_dir: Path, question: Question, wanted: type[A]) -> A | None:
    """Return what the gateway of a state directory answers; None where none runs.

    Raises:
        UnavailableError: one may run, and does not answer us.
    """
    where = socket_path(state_dir)
    try:
        with _short(state_dir) as directory, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_ANSWER_WITHIN_S)
            connection.connect(f"{directory}/{_NAME}")
            connection.sendall(_encoder.encode(question))
            connection.shutdown(socket.SHUT_WR)
            answer = _answers.decode(_receive(connection, _MOST_ANSWER_BYTES, _ANSWER_WITHIN_S))
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        return None
    except PermissionError as error:
        raise UnavailableError(f"{where}: {error.strerror}; ask as the gateway's user, or as root") from error
    except TimeoutError as error:
        raise UnavailableError(f"{where}: no answer within {_ANSWER_WITHIN_S:.0f} s; ask again") from error
    except OSError as error:
        raise UnavailableError(f"{where}: {error.strerror or error}; ask again") from error
    except NOT_DECODED as error:
        raise UnavailableError(
            f"{where}: no answer that we understand: {error}; ask again, with the Headwater that the gateway runs"
        ) from error
    if isinstance(answer, wanted):
        return answer
    raise UnavailableError(f"{where}: {answer.words if isinstance(answer, Problem) else 'found another answer'}")


@contextmanager
def _short(directory: Path) -> Iterator[str]:
    """Yield a path of a directory that is short, whatever its own is."""
    opened = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{opened}"
    finally:
        os.close(opened)


def _receive(connection: socket.socket, most_bytes: int, within_s: float) -> bytes:
    """Return what comes up to the end of the stream.

    Raises:
        UnavailableError: it is too much.
        TimeoutError: it takes too long, as a whole.
    """
    deadline = monotonic() + within_s
    received = bytearray()
    while True:
        left_s = deadline - monotonic()
        if left_s <= 0.0:
            raise TimeoutError
        connection.settimeout(left_s)
        piece = connection.recv(_PIECE_BYTES)
        if not piece:
            return bytes(received)
        received += piece
        if len(received) > most_bytes:
            raise UnavailableError(f"found more than {most_bytes} bytes, wanted no more")
