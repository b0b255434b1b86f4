"""A model file that knows its own digest, so that a changed byte is found before anything is believed.

The digest is a string in the GGUF's metadata: the SHA-256 of the whole file, taken while the string was 64 zeros. Any
byte counts, of metadata and weights alike, that of the key too: a release without a seal is refused like a broken one.
It says that a file is whole. Who made it, a signature says.
"""

import hashlib
import os
from pathlib import Path

from models.contracts.errors import ConfigError, UntrustedError

SEAL_KEY = "headwater.sha256"
UNSEALED = "0" * 64
_CHUNK_BYTES = 1 << 20
_STRING = 8  # the number by which a GGUF says that a value is a string
# Key, kind and length stand before the digits, as a GGUF writes a pair: nothing else in the file begins so.
_MARK = (
    len(SEAL_KEY).to_bytes(8, "little") + SEAL_KEY.encode() + _STRING.to_bytes(4, "little") + (64).to_bytes(8, "little")
)


def seal(path: Path) -> str:
    """Write the digest where `UNSEALED` was left for it, and return it.

    Raises:
        ValueError: no place was left.
    """
    place, digest = _place_and_digest(path)
    if place is None:
        raise ValueError(f"{path}: no `{SEAL_KEY}` in its metadata")
    with path.open("rb+") as file:
        file.seek(place)
        file.write(digest.encode())
        file.flush()
        os.fsync(file.fileno())
    return digest


def is_sealed(path: Path) -> bool:
    """Tell whether a file holds a seal, whole or broken.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return _place(file.fileno(), os.fstat(file.fileno()).st_size) is not None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error


def check_seal(path: Path) -> None:
    """Compare a file with the digest that it holds.

    Raises:
        UntrustedError: a byte was changed, or it holds none.
        ConfigError: it cannot be read.
    """
    try:
        place, digest = _place_and_digest(path)
        if place is None:
            raise UntrustedError(f"{path}: holds a release and no seal (`{SEAL_KEY}`); refused it: package it again")
        with path.open("rb") as file:
            file.seek(place)
            said = file.read(64)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error
    if said != digest.encode():
        raise UntrustedError(
            f"{path}: hashes to {digest}, its seal says {said.decode('ascii', 'replace')}; it was changed or damaged "
            "after it was made; refused it: fetch it again"
        )


def _place_and_digest(path: Path) -> tuple[int | None, str]:
    """Return where the digits stand, and the digest of the file with zeros in their place."""
    digest = hashlib.sha256()
    place: int | None = None
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        place = _place(file.fileno(), size)
        for begin in range(0, size, _CHUNK_BYTES):
            chunk = bytearray(os.pread(file.fileno(), _CHUNK_BYTES, begin))
            if place is not None:
                for at in range(max(place, begin), min(place + 64, begin + len(chunk))):
                    chunk[at - begin] = ord("0")
            digest.update(chunk)
    return place, digest.hexdigest()


def _place(descriptor: int, size: int) -> int | None:
    """Return where the digits stand; metadata come first in a GGUF, so it is seldom far."""
    overlap = len(_MARK) + 64
    for begin in range(0, size, _CHUNK_BYTES):
        found = os.pread(descriptor, _CHUNK_BYTES + overlap, begin).find(_MARK)
        if 0 <= found < _CHUNK_BYTES:
            return begin + found + len(_MARK)
    return None
