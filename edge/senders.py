"""Sends lines to a gateway as real senders do, at a pace: syslog over TCP in both framings, and over UDP."""

import re
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from time import monotonic, sleep

_WRITE_LINES = 20  # what a sender's own buffer would gather
_PRIORITY = re.compile(rb"<\d{1,3}>")
_TIMEOUT_S = 60.0  # a gateway whose spool is full does not read; senders wait for it


def line_framed(line: bytes) -> bytes:
    """Return the line with a line feed behind it (RFC 6587 section 3.4.2)."""
    return line + b"\n"


def octet_counted(line: bytes) -> bytes:
    """Return the line with its length before it (RFC 6587 section 3.4.1)."""
    return b"%d %s" % (len(line), line)


def as_syslog(line: bytes) -> bytes:
    """Return the line with a priority, where it has none: senders always write one."""
    return line if _PRIORITY.match(line) else b"<14>" + line  # user-level, informational


def paced(lines: Sequence[bytes], per_second: float, at_once: int = _WRITE_LINES) -> Iterator[Sequence[bytes]]:
    """Yield lines so that, whatever the receiver does, `per_second` have been yielded: an open loop."""
    began = monotonic()
    for start in range(0, len(lines), at_once):
        wait_s = began + start / per_second - monotonic()
        if wait_s > 0:
            sleep(wait_s)
        yield lines[start : start + at_once]


def send_tcp(
    port: int, writes: Iterable[Sequence[bytes]], frame: Callable[[bytes], bytes], host: str = "127.0.0.1"
) -> None:
    """Send over one connection and wait until the gateway has read to its end."""
    with socket.create_connection((host, port), timeout=_TIMEOUT_S) as sock:
        for lines in writes:
            sock.sendall(b"".join(map(frame, lines)))
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(4096):  # the gateway closes when it has read our end
            pass


def send_udp(port: int, writes: Iterable[Sequence[bytes]], host: str = "127.0.0.1") -> None:
    """Send a datagram a line."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((host, port))
        for lines in writes:
            for line in lines:
                sock.send(line)
