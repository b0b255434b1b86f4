"""Verdicts of the centre, and of people, on gateways' events: picked from all others, and handed out to who asks.

A gateway says how far it has them on its disk. So a bridge has nothing to remember, and what is lost on the way, with
a broker or with a bridge, the gateway asks for again.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import msgspec
import structlog
from msgspec import Struct

from dataflows.connectors.kafka_consumer import Stretch, Taken
from dataflows.connectors.kafka_publisher import Outgoing
from dataflows.connectors.mqtt_requests import Request
from dataflows.connectors.uplink import (
    HOLD_S,
    MESSAGE_BYTES,
    MESSAGE_LINES,
    Offsets,
    decode_wanted,
    encode_answers,
    encode_wanted,
)
from models.contracts.errors import InputError
from models.contracts.verdict import CENTRAL
from models.contracts.wire import NOT_DECODED

_SERVED_S = 1.0  # how long a gateway that got something is expected to be back
_MOST_WAITING = 10_000  # gateways; one more is answered at once, and asks again

log = structlog.get_logger()


class _Addressed(Struct):
    gateway: str | None = None
    revision: int = 0


def for_gateways(lines: Sequence[bytes], topic: str) -> list[Outgoing]:
    """Return those of all verdicts that a gateway is to know of, for `topic`; what is no verdict is none of these."""
    found = []
    for line in lines:
        try:
            verdict = msgspec.json.decode(line, type=_Addressed)
        except NOT_DECODED:
            continue
        if verdict.gateway and verdict.revision >= CENTRAL:
            found.append(Outgoing(topic, verdict.gateway.encode(), line))
    return found


class _Waiting(Struct):
    request: Request
    have: Offsets
    since: float


class _Served(Struct):
    have: Offsets
    until: float


class Waiting:
    """Gateways that have asked and are not answered yet. No I/O."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._by_gateway: dict[str, _Waiting] = {}
        self._served: dict[str, _Served] = {}  # they ask again in a moment, for what comes next

    def __bool__(self) -> bool:
        return bool(self._by_gateway)

    def add(self, request: Request) -> None:
        """Take a question; of two of one gateway the later one stands."""
        try:
            have = decode_wanted(request.message.payload)
        except InputError as error:
            log.warning("question_refused", gateway=request.gateway, reason=str(error), action="left it unanswered")
            return
        is_crowded = len(self._by_gateway) >= _MOST_WAITING
        since = self._clock() - HOLD_S if is_crowded else self._clock()
        self._by_gateway[request.gateway] = _Waiting(request, have, since)
        self._served.pop(request.gateway, None)

    def start(self) -> Offsets:
        """Return from where on somebody wants to know, or will in a moment."""
        now = self._clock()
        self._served = {gateway: each for gateway, each in self._served.items() if each.until > now}
        wanted = [each.have for each in self._by_gateway.values()] + [each.have for each in self._served.values()]
        partitions = set().union(*wanted)
        return {partition: min(have.get(partition, 0) for have in wanted) for partition in partitions}

    def learn(self, stretch: Stretch) -> Iterator[tuple[Request, bytes]]:
        """Take what follows from `start` on; yield the answers that this makes, and those that have waited long."""
        by_gateway: dict[str, list[Taken]] = defaultdict(list)
        for record in stretch.records:
            by_gateway[(record.key or b"").decode(errors="replace")].append(record)
        due = self._clock() - HOLD_S
        for gateway, waiting in list(self._by_gateway.items()):
            if beyond := _beyond_the_end(waiting.have, stretch):
                log.warning("offsets_beyond_the_end", gateway=gateway, offsets=beyond, action="beginning at 0")
                waiting.have = waiting.have | dict.fromkeys(beyond, 0)
                continue  # what it lacks lies before this stretch
            lines = _move_on(waiting, by_gateway.get(gateway, ()), stretch)
            if lines or waiting.since <= due:
                yield self._answer(gateway, lines)

    def dismiss(self) -> Iterator[tuple[Request, bytes]]:
        """Yield an answer without verdicts for everybody, so that they ask somebody else."""
        for gateway in list(self._by_gateway):
            yield self._answer(gateway, [])

    def _answer(self, gateway: str, lines: Sequence[bytes]) -> tuple[Request, bytes]:
        waiting = self._by_gateway.pop(gateway)
        if lines:
            self._served[gateway] = _Served(waiting.have, self._clock() + _SERVED_S)
        return waiting.request, encode_answers(waiting.have, lines)


def following(
    have: Offsets, its: Sequence[Taken], stretch: Stretch, most_bytes: int = MESSAGE_BYTES
) -> tuple[Offsets, list[bytes]]:
    """Return up to where a gateway has everything, once it has the lines that are returned with it.

    `its` are those records of the stretch that are for this gateway.
    """
    new = [record for record in its if _is_new(record, have, stretch)]
    lines: list[bytes] = []
    size = 0
    for record in new[:MESSAGE_LINES]:
        size += 1 + len(record.value)
        if lines and size > most_bytes:
            break
        lines.append(record.value)
    then = {
        partition: at if partition in stretch.anew else max(at, have.get(partition, 0))
        for partition, at in stretch.at.items()
    }
    for record in reversed(new[len(lines) :]):
        then[record.partition] = record.offset
    return then, lines


def _move_on(waiting: _Waiting, its: Sequence[Taken], stretch: Stretch) -> list[bytes]:
    """Move a gateway on; return the lines that bring it there, without those that no answer can hold."""
    if not its:
        waiting.have, lines = following(waiting.have, its, stretch)
        return lines
    have = waiting.have
    furthest = {partition: max(at, have.get(partition, 0)) for partition, at in stretch.at.items()}
    room = waiting.request.longest - len(encode_wanted(furthest))
    fitting = [record for record in its if 1 + len(record.value) <= room]
    waiting.have, lines = following(have, fitting, stretch, min(MESSAGE_BYTES, room))
    for record in its:
        is_passed = _is_new(record, have, stretch) and record.offset < waiting.have[record.partition]
        if 1 + len(record.value) > room and is_passed:
            # Sent all the same it would end the connection, and the next one likewise.
            log.error(
                "answer_too_large",
                gateway=waiting.request.gateway,
                partition=record.partition,
                offset=record.offset,
                bytes=len(record.value),
                room=room,
                action="left it out; the broker takes no larger packet: raise its limit",
            )
    return lines


def _is_new(record: Taken, have: Offsets, stretch: Stretch) -> bool:
    return record.partition in stretch.anew or record.offset >= have.get(record.partition, 0)


def _beyond_the_end(have: Offsets, stretch: Stretch) -> Offsets:
    """Return what a gateway says it has and nobody can have: the topic was made anew, and offsets begin again."""
    return {
        partition: have[partition]
        for partition, end in stretch.ends.items()
        if have.get(partition, 0) > end and partition not in stretch.anew
    }
