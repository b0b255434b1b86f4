"""Syslog messages to a SIEM over TCP or TLS, octet-counted (RFC 6587, RFC 5425).

Syslog has no acknowledgement, so this comes as near to one as TCP allows:

* A delivery counts once the peer's kernel has acknowledged every byte of it and the connection still stands.
* What the peer's kernel had and its process did not read is lost when the process dies. So what was sent is kept until
  its connection has outlived it by `resend_s`; when a connection breaks, all that is kept is sent again on the next.
* Of what is kept, the oldest goes beyond `resend_bytes`, except on a connection younger than `resend_s`: it is not
  trusted to have a reader, and sending waits. A load balancer without a back end swallows nothing that way.

The receiver sees repeats after a reconnect; the id in each message tells them apart.
"""

import fcntl
import select
import socket
import ssl
import struct
import termios
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic, sleep

from dataflows.connectors.courier import Refusal
from models.contracts.errors import UnavailableError

_LOOK_S = 0.002  # between looks at the kernel's queue; a round trip on a LAN is shorter


class SiemCarrier:
    """One connection at a time to a syslog receiver."""

    def __init__(
        self,
        host: str,
        port: int,
        tls: ssl.SSLContext | None = None,
        *,
        stall_s: float = 5.0,
        resend_s: float = 5.0,
        resend_bytes: int = 4 << 20,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Describe the way; `stall_s` is how long nothing may move while we connect or send."""
        self._host = host
        self._port = port
        self._tls = tls
        self._stall_s = stall_s
        self._resend_s = resend_s
        self._resend_bytes = resend_bytes
        self._clock = clock
        self._connection: socket.socket | None = None
        self._connected_at = 0.0
        self._kept: deque[tuple[float, bytes]] = deque()  # when it was sent, and the frame
        self._kept_bytes = 0

    def deliver(self, payloads: Sequence[bytes]) -> Sequence[Refusal]:
        if not payloads and not self._kept:
            return ()
        try:
            connection = self._living() or self._connect()
            self._forget()
            if payloads:
                frames = [b"%d %b" % (len(payload), payload) for payload in payloads]
                self._make_room(connection, sum(map(len, frames)))
                self._send(connection, frames)
                self._keep(frames)
        except OSError as error:
            self._drop()
            raise UnavailableError(
                f"siem {self._host}:{self._port}: {_reason(error)}; what is to be sent waits"
            ) from error
        return ()

    def close(self) -> None:
        self._drop()

    def _living(self) -> socket.socket | None:
        if self._connection is None:
            return None
        try:
            _see_that_it_stands(self._connection)
        except OSError:
            self._drop()
        return self._connection

    def _connect(self) -> socket.socket:
        """Connect, and send again what an earlier connection may have swallowed."""
        plain = socket.create_connection((self._host, self._port), timeout=self._stall_s)
        self._connection = plain
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
        if self._tls is not None:
            self._connection = self._tls.wrap_socket(plain, server_hostname=self._host)
            self._see_that_our_certificate_is_taken(self._connection)
        connection = self._connection
        again = [frame for _, frame in self._kept]
        self._connected_at = self._clock()
        if again:
            self._send(connection, again)
            self._kept.clear()
            self._kept_bytes = 0
            self._keep(again)
        return connection

    def _see_that_our_certificate_is_taken(self, connection: ssl.SSLSocket) -> None:
        # In TLS 1.3 a client learns after its handshake that it was refused; what follows at once is that, or a ticket.
        if connection.version() == "TLSv1.3":
            select.select([connection], [], [], 1.0)
            _see_that_it_stands(connection)

    def _send(self, connection: socket.socket, frames: Sequence[bytes]) -> None:
        connection.settimeout(self._stall_s)
        rest = memoryview(b"".join(frames))
        while rest:
            rest = rest[connection.send(rest) :]
        queued = _queued_bytes(connection)
        moved_at = self._clock()
        while queued:
            sleep(_LOOK_S)
            before, queued = queued, _queued_bytes(connection)
            if queued < before:
                moved_at = self._clock()
            elif self._clock() - moved_at > self._stall_s:
                raise TimeoutError(f"{queued} bytes not acknowledged for {self._stall_s:g} s")
        _see_that_it_stands(connection)

    def _make_room(self, connection: socket.socket, size: int) -> None:
        while self._kept and self._kept_bytes + size > self._resend_bytes:
            if self._clock() - self._connected_at < self._resend_s:
                sleep(_LOOK_S)
                _see_that_it_stands(connection)
            else:
                self._kept_bytes -= len(self._kept.popleft()[1])

    def _keep(self, frames: Sequence[bytes]) -> None:
        now = self._clock()
        self._kept.extend((now, frame) for frame in frames)
        self._kept_bytes += sum(map(len, frames))

    def _forget(self) -> None:
        """Forget what its connection has outlived: it stands, we have just looked."""
        before = self._clock() - self._resend_s
        while self._kept and self._kept[0][0] < before:
            self._kept_bytes -= len(self._kept.popleft()[1])

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _see_that_it_stands(connection: socket.socket) -> None:
    """Read what the peer says, which is nothing in syslog, until it has nothing more to say.

    Raises:
        OSError: it has closed the connection.
    """
    connection.settimeout(0)
    try:
        while connection.recv(4096):
            pass
    except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
        return
    raise ConnectionResetError("the receiver closed the connection")


def _queued_bytes(connection: socket.socket) -> int:
    """Return what the peer's kernel has not acknowledged (SIOCOUTQ, by its older name)."""
    (queued,) = struct.unpack("i", fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, b"\0" * 4))
    return int(queued)


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is refused: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or error}"
    return error.strerror or str(error) or type(error).__name__
