"""What to do about an address that cannot be bound, and whether that may pass by itself."""

import errno
import socket

from models.contracts.errors import ConfigError, UnavailableError

# By errno, and by getaddrinfo's own numbers, which are negative. At boot another program may still hold the port, the
# interface may have no address yet and no name server may answer.
_MAY_PASS = {errno.EADDRINUSE, errno.EADDRNOTAVAIL, socket.EAI_AGAIN}


def unbindable(where: str, protocol: str, host: str, port: int, error: OSError) -> ConfigError | UnavailableError:
    """Return the error to raise for an address, tcp or udp, that could not be bound."""
    kind = UnavailableError if error.errno in _MAY_PASS else ConfigError
    return kind(
        f"{where}: {protocol} {host}:{port} cannot be bound: {error.strerror or error}; {remedy(protocol, error)}"
    )


def remedy(protocol: str, error: OSError) -> str:
    """Say what to do about it."""
    match error.errno:
        case errno.EADDRINUSE:
            return f"stop what listens there (`ss -lnp{protocol[0]}`), or set another port"
        case errno.EACCES:
            return "ports below 1024 need CAP_NET_BIND_SERVICE; the shipped unit grants it"
        case errno.EADDRNOTAVAIL:
            return "no interface of this machine has this address"
        case _:
            return "look at the host and the port"
