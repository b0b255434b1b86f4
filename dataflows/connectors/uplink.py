"""What gateways and the centre's bridge say to each other over MQTT: topics, sizes, and what stands in a message.

Two exchanges, each with a topic of the gateway's for what it asks and one for what the bridge answers. A gateway sends
verdicts by `uplink`, and the answer by `received` says that Kafka has them. It asks by `wanted` for verdicts of the
centre on its events, says how far it has them on its disk, and the answer by `answers` brings those that follow. So
both ends may be killed at any moment, and the broker between them may forget whatever it likes: who gets no answer
asks again.

A bridge answers to the topic that follows from the one it was asked by, never to one that is named in a message: it
may write to all gateways, and who asks may not. No I/O.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from models.contracts.errors import ConfigError, InputError

MESSAGE_BYTES = 256 << 10  # of lines that go together
LINE_BYTES = (1 << 20) - 4096  # of one that goes alone: with what Kafka adds it stays below what a topic takes
MESSAGE_LINES = 1000
HOLD_S = 20.0  # how long a bridge waits for something to answer with
_ROOT = re.compile(r"[^+#\0$/][^+#\0]{0,255}")


class Exchange(Struct, frozen=True):
    """What is asked, and how it is answered: the last level of either topic."""

    ask: str
    answer: str


UPLINK = Exchange("uplink", "received")
DOWNLINK = Exchange("wanted", "answers")

_Partition = Annotated[int, Meta(ge=0, le=(1 << 31) - 1)]
_Offset = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]  # a client of Kafka's reads a negative one as a command

Offsets = dict[int, int]
"""Of each partition the offset of the record that is to come next."""


def check_root(where: str, root: str) -> None:
    """Refuse a root that no topic can have.

    Raises:
        ConfigError: the root; `where` names its section.
    """
    if not _ROOT.fullmatch(root) or root.endswith("/"):
        raise ConfigError(
            f"{where}: `root`: found `{root}`; wanted levels of a topic, without `+`, `#`, a first `$` and a last `/`"
        )


def topic_of(root: str, gateway: str, level: str) -> str:
    """Return the topic of one gateway."""
    return f"{root}/{gateway}/{level}"


def shared_filter(root: str, level: str) -> str:
    """Return the filter by which several bridges share what all gateways ask."""
    return f"$share/bridge/{root}/+/{level}"


def gateway_of(topic: str) -> str:
    """Return whose topic it is. The broker's access list says that nobody else writes there."""
    return topic.rsplit("/", 2)[1]


def packed(sizes: Sequence[int], most_bytes: int = MESSAGE_BYTES) -> Iterator[range]:
    """Yield stretches of lines that go together: what is larger by itself goes alone."""
    first, taken = 0, 0
    for position, size in enumerate(sizes):
        if position > first and (taken + size > most_bytes or position - first >= MESSAGE_LINES):
            yield range(first, position)
            first, taken = position, 0
        taken += size + 1
    if first < len(sizes):
        yield range(first, len(sizes))


def encode_wanted(have: Mapping[int, int]) -> bytes:
    """Return a question: what follows from here on?"""
    return msgspec.json.encode(have)


def decode_wanted(payload: bytes) -> Offsets:
    """Read a question.

    Raises:
        InputError: it is none.
    """
    try:
        return msgspec.json.decode(payload, type=dict[_Partition, _Offset])
    except msgspec.DecodeError as error:
        raise InputError(f"offsets: {error}") from error


def encode_answers(have: Mapping[int, int], lines: Sequence[bytes]) -> bytes:
    """Return an answer: these follow, and whoever has them has everything up to there."""
    return b"\n".join([msgspec.json.encode(have), *lines])


def decode_answers(payload: bytes) -> tuple[Offsets, list[bytes]]:
    """Read an answer.

    Raises:
        InputError: it is none.
    """
    have, *lines = payload.split(b"\n")
    return decode_wanted(have), lines
