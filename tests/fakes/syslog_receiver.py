"""A syslog receiver on a real socket: reads octet-counted messages, can die with bytes unread and come back."""

import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from threading import Condition, Thread


class Receiver:
    """One port for its whole life, so that a sender finds it again."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._changed = Condition()
        self._connections: list[socket.socket] = []
        self._listener: socket.socket | None = None
        self._accepting = Thread()
        self.messages: list[bytes] = []
        self.connected = 0
        self.reads = True
        self.slams = False
        self.port = 0
        self.start()

    def start(self) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen()
        self.port = listener.getsockname()[1]
        self._listener = listener
        self._accepting = Thread(target=self._accept, args=(listener,), daemon=True)
        self._accepting.start()

    def stop(self) -> None:
        """Die: whatever was not read is lost, as with a killed process."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.shutdown(socket.SHUT_RDWR)
            self._accepting.join()  # or one accepted meanwhile would outlive us
            listener.close()
        with self._changed:
            connections, self._connections = self._connections, []
        for connection in connections:
            _reset(connection)

    def until(self, true: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(true, timeout=20), (self.connected, len(self.messages))

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            with self._changed:
                self.connected += 1
                self._connections.append(plain)
                self._changed.notify_all()
            if self.slams:
                _reset(plain)
                continue
            if self.reads:
                Thread(target=self._read, args=(plain,), daemon=True).start()

    def _read(self, plain: socket.socket) -> None:
        try:
            connection = self._tls.wrap_socket(plain, server_side=True) if self._tls is not None else plain
            if connection is not plain:
                with self._changed:
                    self._connections = [connection if found is plain else found for found in self._connections]
            buffer = b""
            while received := connection.recv(65536):
                buffer += received
                while (blank := buffer.find(b" ")) > 0 and len(buffer) > blank + int(buffer[:blank]):
                    end = blank + 1 + int(buffer[:blank])
                    with self._changed:
                        self.messages.append(buffer[blank + 1 : end])
                        self._changed.notify_all()
                    buffer = buffer[end:]
        except (OSError, ValueError):
            return


def _reset(connection: socket.socket) -> None:
    """Close with a reset, as the kernel does for a process that dies with bytes unread."""
    with suppress(OSError):  # a handshake that failed has closed it already
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
