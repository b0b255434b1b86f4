"""The flow with Kafka at both ends: killed at any moment, alone and in a cluster, while its broker comes and goes."""

import os
import re
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from time import monotonic, sleep

import pytest
from bytewax.recovery import init_db_dir
from confluent_kafka import Producer

from central.local_kafka import LocalKafka
from central.topics import Names, create, declared
from dataflows.connectors.backlog import held
from dataflows.connectors.kafka import Cluster
from dataflows.running.child import free_port
from models.contracts.event import DeadLetter
from models.contracts.verdict import CENTRAL, Verdict
from models.contracts.wire import decode_dead_letter, decode_verdict, encode
from tests.fakes.verdicts import verdict
from tests.real.kafka import Record, read_all
from tests.real.kafka_header import produce_with_header

SEED = 20260131
PARTITIONS = 4
WITHIN_S = 120.0
BLANK_EVERY = 97


class Flow:
    """The flow over topics of its own, in processes that are started and ended."""

    def __init__(self, kafka: LocalKafka, prefix: str, folder: Path) -> None:
        self.kafka, self.names, self.folder = kafka, Names(prefix), folder
        create(Cluster(brokers=kafka.brokers), declared(prefix, partitions=PARTITIONS))
        (folder / "recovery").mkdir()
        init_db_dir(folder / "recovery", 2)

    def fill(self, numbers: range) -> None:
        """Produce numbered events, some of which nobody can read."""
        producer = Producer({"bootstrap.servers": self.kafka.brokers, "log_level": 0})
        for number in numbers:
            text = b" " * number if number % BLANK_EVERY == 0 else b"event %d" % number
            producer.produce(self.names.events, text, b"key %d" % number, headers=[("number", b"%d" % number)])
        assert producer.flush(WITHIN_S) == 0

    @contextmanager
    def running(self, processes: int = 1, *options: str) -> Iterator[list["subprocess.Popen[bytes]"]]:
        addresses = [f"127.0.0.1:{free_port()}" for _ in range(processes)] if processes > 1 else []
        with ExitStack() as ended:
            started = [ended.enter_context(self._process(number, addresses, *options)) for number in range(processes)]
            yield started

    @contextmanager
    def _process(self, number: int, addresses: list[str], *options: str) -> Iterator["subprocess.Popen[bytes]"]:
        command = [sys.executable, "-m", "tests.flows.kafka_process", str(self.folder), self.kafka.brokers]
        command += [self.names.prefix, *options, "--process", str(number), "--addresses", *addresses]
        with self.log(number).open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def log(self, number: int) -> Path:
        return self.folder / f"log-{number}"

    def slots(self, number: int) -> set[str]:
        """Return which slots a process has read."""
        return set(re.findall(r"slot=(\d+)", self.log(number).read_text()))

    def drained(self, processes: int = 1, *options: str) -> None:
        """Run until all is read, and then until what could not be delivered meanwhile is."""
        with self.running(processes, "--drain", *options) as started:
            for number, process in enumerate(started):
                assert process.wait(WITHIN_S) == 0, self.log(number).read_text()
        if self.undelivered():
            with self.running(processes, *options) as started:
                until(lambda: not self.undelivered(), "the backlogs are empty")
                for process in started:
                    process.send_signal(signal.SIGTERM)
                    assert process.wait(WITHIN_S) == 0
        assert not self.undelivered()

    def undelivered(self) -> int:
        return sum(map(held, self.folder.glob("*.sqlite3")))

    def verdicts(self) -> list[tuple[Record, Verdict]]:
        return [(record, decode_verdict(record.value)) for record in read_all(self.kafka, self.names.verdicts)]

    def letters(self) -> list[tuple[Record, DeadLetter]]:
        found = read_all(self.kafka, self.names.dead_letters)
        return [(record, decode_dead_letter(record.value)) for record in found]

    def has(self, verdicts: int) -> Callable[[], bool]:
        return lambda: len({record.key for record in read_all(self.kafka, self.names.verdicts)}) >= verdicts


@pytest.fixture
def flow(kafka: LocalKafka, topic: str, tmp_path: Path) -> Flow:
    return Flow(kafka, topic, tmp_path)


def until(true: Callable[[], bool], what: str) -> None:
    deadline = monotonic() + WITHIN_S
    while not true():
        assert monotonic() < deadline, what
        sleep(0.05)


def require_all(flow: Flow, count: int) -> None:
    """See that every event has one verdict or one dead letter; what a crash repeated says the same again."""
    said: dict[tuple[str, int], set[tuple[int, str, str, str]]] = defaultdict(set)
    for record, found in flow.verdicts():
        assert record.key == found.id.encode()
        said[found.id, found.revision].add((record.partition, found.text, found.label, found.route))
    assert all(len(each) == 1 for each in said.values())
    texts = sorted(text for ((_, text, _, _),) in said.values())
    assert texts == sorted(f"event {number}" for number in range(count) if number % BLANK_EVERY)

    buried = {letter.id: (record, letter) for record, letter in flow.letters()}
    blanks = range(0, count, BLANK_EVERY)
    assert sorted(letter.raw for _, letter in buried.values()) == [b" " * number for number in blanks]
    for record, letter in buried.values():
        number = b"%d" % len(letter.raw)
        assert (letter.key, letter.headers) == (b"key " + number, (("number", number),))
        assert letter.topic == flow.names.events
        assert record.headers == (("reason", b"empty"), ("source", b"events"))


def test_a_flow_and_a_broker_that_are_killed_again_and_again_lose_nothing_and_say_nothing_twice_otherwise(
    flow: Flow,
) -> None:
    chance = Random(SEED)
    flow.fill(range(2000))
    count, with_work_left = 2000, 0
    for kill in range(4):
        reached = len({record.key for record, _ in flow.verdicts()})
        with flow.running() as (process,):
            until(flow.has(verdicts=reached + 1), flow.log(0).read_text())
            flow.fill(range(count, count + 3000))
            count += 3000
            sleep(chance.uniform(0, 0.3))  # the moment of the kill
            if kill % 2:
                flow.kafka.stop(signal.SIGKILL)
                sleep(chance.uniform(0, 1))
            process.send_signal(signal.SIGKILL)
            process.wait()
        if not flow.kafka.runs:
            flow.kafka.start()
        with_work_left += not flow.has(verdicts=count - count // BLANK_EVERY - 1)()
    assert with_work_left >= 2
    flow.drained()

    require_all(flow, count)


def test_two_processes_share_the_partitions_and_where_one_is_killed_the_other_ends_and_nothing_is_lost(
    flow: Flow,
) -> None:
    count = 6000
    flow.fill(range(count))
    with flow.running(2) as (first, second):
        until(flow.has(verdicts=500), flow.log(0).read_text())
        second.send_signal(signal.SIGKILL)
        assert first.wait(WITHIN_S) != 0
    assert [flow.slots(number) for number in range(2)] == [{"0", "2"}, {"1", "3"}]
    flow.fill(range(count, count + 3000))
    count += 3000
    flow.drained(2)
    require_all(flow, count)

    flow.fill(range(count, count + 500))
    count += 500
    flow.drained(1)
    require_all(flow, count)

    flow.fill(range(count, count + 500))
    count += 500
    flow.drained(2)
    require_all(flow, count)


def test_what_is_not_ours_too_large_or_of_a_newer_schema_becomes_a_dead_letter_whole_and_the_rest_goes_on(
    flow: Flow,
) -> None:
    topic = flow.names.questions
    records: dict[bytes, bytes | None] = {
        b"newer": encode(verdict(id="newer")).replace(b"verdict/1", b"verdict/2"),
        b"noise": b"\xff\x00 nothing of the kind",
        b"large": os.urandom(900_000),
        b"empty": b"",
        b"null": None,
        b"question": encode(verdict(id="gw-1~1", text="event 1", route="escalated", gateway="gw-1")),
    }
    producer = Producer({"bootstrap.servers": flow.kafka.brokers, "log_level": 0})
    for key, value in records.items():
        producer.produce(topic, value, key, headers=[("trace", b"\x00\xff"), ("none", None)])
    assert producer.flush(WITHIN_S) == 0
    produce_with_header(flow.kafka.brokers, topic, b"odd", b"caf\xe9", b"value")
    flow.drained(1, "--questions")

    ((_, answer),) = flow.verdicts()
    assert (answer.id, answer.gateway, answer.revision) == ("gw-1~1", "gw-1", CENTRAL)
    letters = {letter.key: letter for _, letter in flow.letters()}
    assert {key: letter.raw for key, letter in letters.items()} == {
        key: value or b"" for key, value in records.items() if key != b"question"
    } | {b"odd": b"odd"}
    assert {letter.reason for letter in letters.values()} == {"not-a-verdict"}
    assert letters[b"newer"].headers == (("trace", b"\x00\xff"), ("none", b""))
    ((name, shown),) = letters[b"odd"].headers
    assert (name, b"value" in shown) == ("headers-not-utf-8", True)
