"""Random and mutated input through framers and header parser: records or a named breakage, never an exception."""

import random
import time
from collections.abc import Callable

import pytest

from dataflows.connectors.framer import Framer
from dataflows.connectors.lines import LineCutter
from models.header import split

LIMIT = 256
NOW_MS = 1_795_000_000_000
SEEDS = [
    b"<34>Nov 21 06:55:46 alpha sshd[24200]: Failed password for root from 192.0.2.7 port 22 ssh2",
    b'<165>1 2026-11-21T22:14:15.003Z mill.example.com evntslog 77 ID47 [ex@32473 a="1" b="x\\"]"] \xef\xbb\xbfRain',
    b"<189>29: *Mar  1 18:46:11.123 UTC: %SYS-5-CONFIG_I: Configured from console by vty0",
    b"<166>Jan 01 2024 10:00:00 fw1 : %ASA-6-302013: Built outbound TCP connection 77",
    b"2026-11-21T12:00:00.123456+02:00 web1 sshd[12]: Connection closed by 192.0.2.9",
    b"[Fri Sep 09 10:42:29.902022 2011] [core:error] [pid 357:tid 4328] [client 192.0.2.9] File missing",
    b"2026/11/21 12:00:00 [error] 1234#99: *5 open() failed (2: No such file or directory)",
    b'{"time": "2026-11-21T12:00:00Z", "event": "login", "user": "lee"}',
    b"Jul  1 09:00:55 mac launchd[1] (com.example.agent.77): Service exited with abnormal code: 1",
]
PIECES = [
    b"<",
    b">",
    b"[",
    b"]",
    b'"',
    b"\\",
    b" ",
    b"  ",
    b": ",
    b"\n",
    b"\0",
    b"\xff",
    b"\xc3",
    b"9",
    b"0",
    b"-",
    b"Feb 30",
    b"T",
]


def mutated(chance: random.Random) -> bytes:
    line = bytearray(chance.choice(SEEDS))
    for _ in range(chance.randrange(6)):
        at = chance.randrange(len(line) + 1)
        match chance.randrange(5):
            case 0:
                line[at:at] = chance.choice(PIECES) * chance.randrange(1, 5)
            case 1:
                del line[at : at + chance.randrange(12)]
            case 2:
                line[at : at + 1] = bytes([chance.randrange(256)])
            case 3:
                line[at:at] = line[chance.randrange(len(line) + 1) :][:20]
            case _:
                line += chance.randbytes(chance.randrange(40))
    return bytes(line)


def fuzzed(chance: random.Random) -> bytes:
    return chance.randbytes(chance.randrange(80)) if chance.random() < 0.2 else mutated(chance)


def check_header(chance: random.Random) -> None:
    line = fuzzed(chance).decode("utf-8", "replace")
    header = split(line, NOW_MS)
    assert bool(header.body) == bool(line)
    assert header.occurred_at_ms is None or header.occurred_at_ms >= 0


def check_framing(chance: random.Random) -> None:
    stream = b""
    for _ in range(chance.randrange(1, 6)):
        message = fuzzed(chance)
        count = b"%d " % (len(message) + chance.choice([0, 0, 0, 1, -1, 1000]))
        stream += chance.choice([message + b"\n", count + message, message])
    whole, pieces, cutter = Framer(LIMIT), Framer(LIMIT), LineCutter(LIMIT)
    expected = whole.feed(stream)
    expected += whole.flush()
    found: list[bytes] = []
    at = 0
    while at < len(stream):
        size = chance.choice([1, 2, 7, 100])
        found += pieces.feed(stream[at : at + size])
        cutter.feed(stream[at : at + size])
        at += size
    found += pieces.flush()
    cutter.flush()
    assert found == expected
    assert pieces.broken == whole.broken
    assert all(0 < len(record) <= LIMIT + 1 for record in found)
    assert cutter.offset == len(stream)


def fuzz(headers: int, streams: int, seed: int, progress: Callable[[str], None]) -> None:
    for check, rounds in ((check_header, headers), (check_framing, streams)):
        for n in range(rounds):
            if n % 1000 == 0:
                progress(f"{check.__name__} {n} of {rounds}, seed {seed}")
            check(random.Random(f"{seed}:{n}"))


def test_twenty_thousand_inputs_are_records_or_named_breakages(progress: Callable[[str], None]) -> None:
    fuzz(16_000, 4_000, 20_000, progress)


@pytest.mark.slow
def test_a_million_inputs_are_records_or_named_breakages(progress: Callable[[str], None]) -> None:
    fuzz(800_000, 200_000, time.time_ns(), progress)
