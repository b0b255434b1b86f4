"""Syslog listeners: UDP (RFC 5426), TCP (RFC 6587) and TLS (RFC 5425), into the group commit."""

import asyncio
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, cast

import structlog
from msgspec import Struct

from dataflows.connectors.binding import unbindable
from dataflows.connectors.framer import Framer
from dataflows.connectors.group_commit import Delivery, GroupCommit, Refusal
from dataflows.connectors.spool import Arrival

_SO_RCVBUFFORCE = 33  # beyond net.core.rmem_max, for who may; Python does not name it
_SO_MEMINFO, _MEMINFO, _MEMINFO_DROPS = 55, struct.Struct("9I"), 8  # a socket's own drop counter, since Linux 4.12
_DATAGRAMS_AT_ONCE, _BYTES_AT_ONCE = 512, 64 << 10
_POLL_S = 0.2  # how long an idle thread takes to notice that it should end
_LAST_LOOK_S = 0.1
_HANDSHAKE_S = 10.0
_PIECE_BYTES = 64 << 10
_BACKLOG = 128
_STREAM_BUFFER_BYTES = 256 << 10  # of the kernel: what a kill loses of a stream, and what a stop has to read yet
_ROOM_POLL_S = 0.01
_ACCEPT_PAUSE_S = 0.1
_DRAIN_S = 0.5  # of the 3 that the intake has for its end: what senders had sent when they see ours

log = structlog.get_logger()


class UdpSource(Struct, frozen=True, kw_only=True):
    name: str
    host: str
    port: int
    max_event_bytes: int
    receive_buffer_bytes: int


class TcpSource(Struct, frozen=True, kw_only=True):
    name: str
    host: str
    port: int
    max_event_bytes: int
    max_connections: int
    idle_timeout_s: float
    tls: ssl.SSLContext | None = None


class UdpListener:
    """One thread that does nothing but empty the socket: at 20,000 datagrams/s an event loop falls behind."""

    def __init__(self, source: UdpSource, commit: GroupCommit) -> None:
        """Bind.

        Raises:
            ConfigError: the address cannot be had.
        """
        self._source = source
        self._commit = commit
        self._socket = _bind(source.name, source.host, source.port, socket.SOCK_DGRAM)
        self._enlarge_buffer()
        self._drops = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"udp-{source.name}", daemon=True)

    @property
    def port(self) -> int:
        return int(self._socket.getsockname()[1])

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Hand over what has arrived, and close."""
        self._stopping.set()
        self._thread.join()
        self._socket.close()

    def _enlarge_buffer(self) -> None:
        wanted = self._source.receive_buffer_bytes
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, wanted)
        except PermissionError:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, wanted)
        granted = (
            self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2
        )  # the kernel doubles what it is told
        if granted < wanted:
            log.warning(
                "receive_buffer_small",
                source=self._source.name,
                granted_bytes=granted,
                wanted_bytes=wanted,
                remedy=f"sysctl -w net.core.rmem_max={wanted}",
            )

    def _run(self) -> None:
        poller = select.poll()
        poller.register(self._socket, select.POLLIN)
        while not self._stopping.is_set():
            # Without room the kernel's buffer is the last one; what it drops is known only while the socket lives.
            if self._commit.wait_for_room(self._source.name, _POLL_S) and poller.poll(_POLL_S * 1000):
                self._receive()
            self._count_drops()
        until = time.monotonic() + _LAST_LOOK_S
        while time.monotonic() < until and self._receive():
            pass
        self._count_drops()

    def _receive(self) -> bool:
        """Hand over what is there; False where nothing was."""
        limit = self._source.max_event_bytes
        records: list[bytes] = []
        size = received = 0
        try:
            while size < _BYTES_AT_ONCE and received < _DATAGRAMS_AT_ONCE:
                record = self._socket.recv(limit + 1)
                received += 1  # blank ones too: a flood of them must not keep us from counting and ending
                size += len(record)
                if len(record) <= limit:
                    record = record.rstrip(b"\r\n\0")
                if record:
                    records.append(record)
        except BlockingIOError:
            pass
        if records:
            arrival = Arrival(self._source.name, time.time_ns() // 1_000_000, records)
            self._commit.offer(Delivery(arrival, Refusal.LOSE))
        return received > 0

    def _count_drops(self) -> None:
        drops = _MEMINFO.unpack(self._socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size))[_MEMINFO_DROPS]
        if drops != self._drops:
            self._commit.lost(self._source.name, "receive-buffer", (drops - self._drops) % (1 << 32))
            self._drops = drops


class TcpListeners:
    """One thread with an event loop for all streams of all sources."""

    def __init__(self, sources: list[TcpSource], commit: GroupCommit) -> None:
        """Bind.

        Raises:
            ConfigError: an address cannot be had.
        """
        self._listeners = [_Listener(source, commit) for source in sources]
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="tcp", daemon=True)

    @property
    def ports(self) -> dict[str, int]:
        return {listener.name: listener.port for listener in self._listeners}

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Tell the senders, hand over what they had sent by then, and close."""
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    async def _serve(self) -> None:
        for listener in self._listeners:
            listener.start(self._loop)
        await self._stopping.wait()
        for listener in self._listeners:
            await listener.stop()
        open_ones = [connection for listener in self._listeners for connection in listener.connections]
        if open_ones:
            await asyncio.wait([asyncio.create_task(each.closed.wait()) for each in open_ones], timeout=_DRAIN_S)
        for listener in self._listeners:
            listener.end()


class _Listener:
    """One source: its socket and its connections, which stop and go on together."""

    def __init__(self, source: TcpSource, commit: GroupCommit) -> None:
        self.source = source
        self.commit = commit
        self.name = source.name
        self.buffer = bytearray(_PIECE_BYTES)  # a piece is copied out before the next is read
        self.connections: set[_Connection] = set()
        self.paused = False
        self.stopping = False
        self._admitted = 0  # from acceptance on, so that handshakes count
        self._tasks: set[asyncio.Task[None]] = set()
        self._socket = _bind(source.name, source.host, source.port, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _STREAM_BUFFER_BYTES)  # inherited when accepted
        self._socket.listen(_BACKLOG)
        self.port = int(self._socket.getsockname()[1])

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._accepting = self._spawn(self._accept())
        self._spawn(self._close_idle())

    async def stop(self) -> None:
        """Accept nobody more, and tell the senders that we are about to go."""
        self.stopping = True
        self._accepting.cancel()
        await asyncio.wait([self._accepting])  # it lets go of the socket
        self._socket.close()
        for connection in list(self.connections):
            connection.say_end()

    def end(self) -> None:
        for connection in list(self.connections):
            connection.close()

    def take(self, records: list[bytes]) -> None:
        arrival = Arrival(self.name, time.time_ns() // 1_000_000, records)
        if self.commit.offer(Delivery(arrival, Refusal.HOLD)) and not self.paused:
            self.paused = True
            for connection in self.connections:
                connection.pause()
            self._spawn(self._resume())

    async def _resume(self) -> None:
        while not self.commit.has_room(self.name):  # noqa: ASYNC110 - it is another thread that makes room
            await asyncio.sleep(_ROOM_POLL_S)
        self.paused = False
        for connection in list(self.connections):
            connection.resume()

    async def _accept(self) -> None:
        while True:
            try:
                connected, peer = await self._loop.sock_accept(self._socket)
            except OSError as error:  # out of descriptors; the backlog waits
                log.warning("accept_failed", source=self.name, reason=str(error))
                await asyncio.sleep(_ACCEPT_PAUSE_S)
                continue
            if self._admitted >= self.source.max_connections:
                connected.close()
                self.commit.happened(self.name, "connections-refused")
                continue
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            self._admitted += 1
            self._spawn(self._serve(connected, peer[0]))

    async def _serve(self, connected: socket.socket, peer: str) -> None:
        connection = _Connection(self)
        try:
            timeout_s = None if self.source.tls is None else _HANDSHAKE_S
            await self._loop.connect_accepted_socket(
                lambda: connection, connected, ssl=self.source.tls, ssl_handshake_timeout=timeout_s
            )
            await connection.closed.wait()
        except (OSError, TimeoutError) as error:  # ssl.SSLError is an OSError
            connected.close()
            self.commit.happened(self.name, "handshakes-failed")
            log.warning("handshake_failed", source=self.name, peer=peer, reason=str(error))
        finally:
            self._admitted -= 1

    async def _close_idle(self) -> None:
        while True:
            await asyncio.sleep(min(self.source.idle_timeout_s / 4, 10.0))
            oldest = self._loop.time() - self.source.idle_timeout_s
            for connection in list(self.connections):
                if not self.paused and connection.heard_at < oldest:
                    self.commit.happened(self.name, "connections-idle")
                    connection.end()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


class _Connection(asyncio.BufferedProtocol):
    """One sender's stream."""

    def __init__(self, listener: _Listener) -> None:
        self._listener = listener
        self._framer = Framer(listener.source.max_event_bytes)
        self._transport: asyncio.Transport | None = None
        self.closed = asyncio.Event()
        self.heard_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._listener.connections.add(self)
        self.heard_at = asyncio.get_running_loop().time()
        if self._listener.paused:
            self.pause()
        if self._listener.stopping:
            self.say_end()

    def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002
        return self._listener.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.heard_at = asyncio.get_running_loop().time()
        records = self._framer.feed(bytes(memoryview(self._listener.buffer)[:nbytes]))
        if records:
            self._listener.take(records)
        if self._framer.broken and self._transport is not None:
            self._listener.commit.happened(self._listener.name, "framing-broken")
            peer = self._transport.get_extra_info("peername")
            log.warning("framing_broken", source=self._listener.name, peer=peer, reason=self._framer.broken)
            self._transport.abort()

    def eof_received(self) -> bool:
        records = self._framer.flush()
        if records:
            self._listener.take(records)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self._listener.commit.happened(self._listener.name, "connections-broken")
        if self._framer.pending:
            self._listener.commit.happened(self._listener.name, "messages-cut-off")
        self._listener.connections.discard(self)
        self.closed.set()

    def pause(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self.heard_at = asyncio.get_running_loop().time()
            self._transport.resume_reading()

    def end(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def say_end(self) -> None:
        """End our half, where the protocol has halves: a sender that looks stops there, and we read on."""
        if self._transport is not None and self._transport.can_write_eof():
            with suppress(OSError):  # gone meanwhile
                self._transport.write_eof()

    def close(self) -> None:
        """Say goodbye in TLS's way too, which a reset would not, and wait for no answer."""
        if self._transport is not None:
            self._transport.close()
            self._transport.abort()


def _bind(name: str, host: str, port: int, kind: socket.SocketKind) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=kind, flags=socket.AI_PASSIVE)[0]
        bound = socket.socket(family, kind)
        bound.setblocking(False)
        if kind is socket.SOCK_STREAM:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        protocol = "tcp" if kind is socket.SOCK_STREAM else "udp"
        raise unbindable(f"source `{name}`", protocol, host, port, error) from error
    return bound
