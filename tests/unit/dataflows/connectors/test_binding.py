"""Which failures to listen may pass by themselves, and what is said to do about each."""

import errno
import os
import socket

import pytest

from dataflows.connectors.binding import unbindable
from models.contracts.errors import ConfigError, HeadwaterError, UnavailableError


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (OSError(errno.EADDRINUSE, "in use"), UnavailableError, "in use; stop what listens there (`ss -lnpt`), or"),
        (OSError(errno.EADDRNOTAVAIL, "no such"), UnavailableError, "no such; no interface of this machine has this"),
        (socket.gaierror(socket.EAI_AGAIN, "later"), UnavailableError, "later; look at the host and the port"),
        (socket.gaierror(socket.EAI_NONAME, "unknown"), ConfigError, "unknown; look at the host and the port"),
        (
            PermissionError(errno.EACCES, os.strerror(errno.EACCES)),
            ConfigError,
            "denied; ports below 1024 need CAP_NET",
        ),
    ],
)
def test_what_a_boot_may_bring_is_no_error_of_the_configuration(
    error: OSError, kind: type[HeadwaterError], words: str
) -> None:
    found = unbindable("source `x`", "tcp", "host", 514, error)
    assert type(found) is kind
    assert str(found).startswith("source `x`: tcp host:514 cannot be bound: ")
    assert words in str(found)
