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
)
from models.contracts.errors import InputError
from models.contracts.verdict import CENTRAL

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
        except msgspec.DecodeError:
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
            waiting.have, lines = following(waiting.have, by_gateway.get(gateway, ()), stretch)
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


def following(have: Offsets, its: Sequence[Taken], stretch: Stretch) -> tuple[Offsets, list[bytes]]:
    """Return up to where a gateway has everything, once it has the lines that are returned with it.

    `its` are those records of the stretch that are for this gateway.
    """
    new = [
        record for record in its if record.partition in stretch.anew or record.offset >= have.get(record.partition, 0)
    ]
    lines: list[bytes] = []
    size = 0
    for record in new[:MESSAGE_LINES]:
        size += len(record.value)
        if lines and size > MESSAGE_BYTES:
            break
        lines.append(record.value)
    then = {
        partition: at if partition in stretch.anew else max(at, have.get(partition, 0))
        for partition, at in stretch.at.items()
    }
    for record in reversed(new[len(lines) :]):
        then[record.partition] = record.offset
    return then, lines
