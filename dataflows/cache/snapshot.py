"""The cache as bytes, so that a gateway that was stopped and started again need not learn it anew. Pure.

A snapshot carries a digest that only who knows the gateway's secret can make: a byte that changed on the disk, or a
file from elsewhere, is found out before anything in it is believed.
"""

import hmac
from hashlib import blake2b, sha256
from typing import Final

import msgspec
from msgspec import Struct

from dataflows.cache.entry import Entry, Refusal
from models.contracts.errors import InputError
from models.contracts.policy import CacheRules, Mask
from models.contracts.release import Release
from models.masking import VERSION

_MAGIC: Final = b"headwater-cache/2\n"
_DIGEST_BYTES: Final = 32


class Made(Struct, frozen=True):
    """What the entries are worth something under: none of it may differ."""

    release_sha256: str  # of the model's file
    contract_sha256: str  # of the `Release`: its labels may come from a task file, and entries hold their numbers
    context_tokens: int
    masks: tuple[Mask, ...]
    known_addresses: tuple[str, ...]
    masking: int = VERSION

    @classmethod
    def under(cls, release_sha256: str, release: Release, context_tokens: int, rules: CacheRules) -> "Made":
        contract_sha256 = sha256(msgspec.msgpack.encode(release)).hexdigest()
        return cls(release_sha256, contract_sha256, context_tokens, rules.masks, rules.known_addresses)


class Snapshot(Struct, frozen=True):
    """Entries and refusals by key, in the order of their last use."""

    made: Made
    entries: list[tuple[str, Entry]]
    refusals: list[tuple[str, Refusal]]


_decoder = msgspec.msgpack.Decoder(Snapshot)


def encode(snapshot: Snapshot, secret: bytes) -> bytes:
    """Return the bytes of a snapshot."""
    body = msgspec.msgpack.encode(snapshot)
    return _MAGIC + _digest(body, secret) + body


def decode(data: bytes, secret: bytes) -> Snapshot:
    """Read a snapshot.

    Raises:
        InputError: it is none, or not as this gateway wrote it.
    """
    head, digest, body = data[: len(_MAGIC)], data[len(_MAGIC) :][:_DIGEST_BYTES], data[len(_MAGIC) + _DIGEST_BYTES :]
    if head != _MAGIC:
        raise InputError("no snapshot of a cache, or one of another version")
    if not hmac.compare_digest(digest, _digest(body, secret)):
        raise InputError("not as this gateway wrote it: its digest differs")
    try:
        return _decoder.decode(body)
    except msgspec.DecodeError as error:
        raise InputError(str(error)) from error


def _digest(body: bytes, secret: bytes) -> bytes:
    return blake2b(body, digest_size=_DIGEST_BYTES, key=secret).digest()
