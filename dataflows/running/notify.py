"""Tells the service manager how we are: the datagrams of sd_notify(3), and nothing of its library."""

import os
import socket
from collections.abc import Callable
from time import monotonic


def notify(*fields: str) -> bool:
    """Send `READY=1`, `STATUS=…` and the like; False where nobody listens.

    A service manager that went away is no reason to stop serving, so a failure is only reported by the result.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address.startswith("@"):  # the abstract namespace
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.settimeout(1.0)
            sock.connect(address)
            sock.sendall("\n".join(fields).encode())
    except OSError:
        return False
    return True


class Watchdog:
    """Feeds the service manager's watchdog, where there is one, as often as it wants."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._every_s = watchdog_interval_s()
        self._fed_at = clock()

    def feed(self) -> None:
        """Say that all is well. Who is not fed in time is killed and started again."""
        if self._every_s is not None and self._clock() - self._fed_at >= self._every_s:
            notify("WATCHDOG=1")
            self._fed_at = self._clock()


def watchdog_interval_s() -> float | None:
    """Return how often the service manager wants to hear `WATCHDOG=1`: half its limit; None where it does not ask."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        limit_us = int(os.environ.get("WATCHDOG_USEC", "0"))
    except ValueError:
        return None
    return limit_us / 2e6 if limit_us > 0 else None
