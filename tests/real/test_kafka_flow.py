"""The flow with Kafka at both ends: killed at any moment, alone and in a cluster, while its broker comes and goes."""

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

from central.java_server import free_port
from central.local_kafka import LocalKafka
from models.contracts.event import DeadLetter
from models.contracts.verdict import Verdict
from models.contracts.wire import decode_dead_letter, decode_verdict
from tests.real.kafka import Record, read_all

SEED = 20260131
PARTITIONS = 4
WITHIN_S = 120.0
BLANK_EVERY = 97


class Flow:
    """The flow over one topic, in processes that are started and ended."""

    def __init__(self, kafka: LocalKafka, topic: str, folder: Path) -> None:
        self.kafka, self.topic, self.folder = kafka, topic, folder
        for name in (topic, f"{topic}-verdicts", f"{topic}-dead-letters"):
            kafka.make_topic(name, partitions=PARTITIONS)
        (folder / "recovery").mkdir()
        init_db_dir(folder / "recovery", 2)

    def fill(self, numbers: range) -> None:
        """Produce numbered events, some of which nobody can read."""
        producer = Producer({"bootstrap.servers": self.kafka.brokers, "log_level": 0})
        for number in numbers:
            text = b" " * number if number % BLANK_EVERY == 0 else b"event %d" % number
            producer.produce(self.topic, text, b"key %d" % number, headers=[("number", b"%d" % number)])
        assert producer.flush(WITHIN_S) == 0

    @contextmanager
    def running(self, processes: int = 1, *options: str) -> Iterator[list["subprocess.Popen[bytes]"]]:
        addresses = [f"127.0.0.1:{free_port()}" for _ in range(processes)] if processes > 1 else []
        with ExitStack() as ended:
            started = [ended.enter_context(self._process(number, addresses, *options)) for number in range(processes)]
            yield started

    @contextmanager
    def _process(self, number: int, addresses: list[str], *options: str) -> Iterator["subprocess.Popen[bytes]"]:
        command = [sys.executable, "-m", "tests.flows.kafka_process", str(self.folder), self.kafka.brokers, self.topic]
        command += [*options, "--process", str(number), "--addresses", *addresses]
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

    def drained(self, processes: int = 1) -> None:
        with self.running(processes, "--drain") as started:
            for number, process in enumerate(started):
                assert process.wait(WITHIN_S) == 0, self.log(number).read_text()

    def verdicts(self) -> list[tuple[Record, Verdict]]:
        return [(record, decode_verdict(record.value)) for record in read_all(self.kafka, f"{self.topic}-verdicts")]

    def letters(self) -> list[tuple[Record, DeadLetter]]:
        found = read_all(self.kafka, f"{self.topic}-dead-letters")
        return [(record, decode_dead_letter(record.value)) for record in found]

    def has(self, verdicts: int) -> Callable[[], bool]:
        return lambda: len({record.key for record in read_all(self.kafka, f"{self.topic}-verdicts")}) >= verdicts


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
    for record, verdict in flow.verdicts():
        assert record.key == verdict.id.encode()
        said[verdict.id, verdict.revision].add((record.partition, verdict.text, verdict.label, verdict.route))
    assert all(len(each) == 1 for each in said.values())
    texts = sorted(text for ((_, text, _, _),) in said.values())
    assert texts == sorted(f"event {number}" for number in range(count) if number % BLANK_EVERY)

    buried = {letter.id: (record, letter) for record, letter in flow.letters()}
    blanks = range(0, count, BLANK_EVERY)
    assert sorted(letter.raw for _, letter in buried.values()) == [b" " * number for number in blanks]
    for record, letter in buried.values():
        number = b"%d" % len(letter.raw)
        assert (letter.key, letter.headers, letter.topic) == (b"key " + number, (("number", number),), flow.topic)
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
