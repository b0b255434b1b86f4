"""How fast the centre's flow is from Kafka to Kafka, with a model that costs nothing: on one core, and in a cluster.

A real broker on this machine holds the events beforehand. The flow runs in processes of their own, with its couriers
and its recovery store as shipped; the verdict cache is off, as for a gateway's table in `bench.pipeline`. Every event
is counted in the topic of verdicts.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from threading import Event as Flag
from time import perf_counter, process_time
from typing import Any

from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.run import cli_main
from msgspec import Struct

from bench.pipeline import ROOT
from bench.pipeline import _records as lines
from bench.pipeline import _table as table
from bench.row import Row
from central.config import Centre
from central.local_kafka import LocalKafka
from dataflows.cache.verdict_cache import VerdictCache
from dataflows.connectors.courier import CourierSink, Limits
from dataflows.connectors.kafka import Cluster
from dataflows.connectors.kafka_publisher import KafkaCarrier, Publishing, id_of
from dataflows.connectors.kafka_reader import read_whole
from dataflows.connectors.kafka_source import Consuming, KafkaSource
from dataflows.observer import Unobserved
from dataflows.operators.repeats import Repeats
from dataflows.running.child import free_port
from dataflows.triage import Outlet, triage
from models.classifier import Current
from models.contracts import wire
from models.contracts.policy import CacheRules, Policy

_EVENTS = 400_000
_PARTITIONS = 4
_TARGET = 40_000
_RATIO = 0.9
_RUNS = 5
_TOGETHER = 10_000
_PATIENCE_S = 60.0  # so that all is in the topic when the flow ends
_EPOCH = timedelta(milliseconds=Centre().epoch_ms)
_WINDOW = 256  # a gateway's default
_IN = "events"


class Spent(Struct, frozen=True):
    """What the processes of one run took."""

    wall_s: float
    cpu_s: float


def rows() -> list[Row]:
    """Measure one process on one core, which the broker leaves to it, and then two, on a core each, against one."""
    with _broker() as kafka:
        alone, both = [], []
        for number in range(_RUNS):  # turn by turn, so that both meet the same machine
            alone.append(measured(kafka, f"alone-{number}", processes=1))
            both.append(measured(kafka, f"both-{number}", processes=2))
    value = _EVENTS / median(run.wall_s for run in alone)
    # The least of each: what else a machine does only adds, by as much as a tenth from one run to the next.
    one, two = (_EVENTS / min(run.cpu_s for run in runs) for runs in (alone, both))
    print(f"kafka: {1e6 / one:.1f} us of processor time an event, in a cluster of two {1e6 / two:.1f}", file=sys.stderr)
    return [
        Row(
            name="kafka_events_per_s",
            value=value,
            unit=f"events/s over {_EVENTS}, without the cache",
            peer=f"{one:.0f} in a second of processor time",
            passed=value >= _TARGET,
        ),
        Row(
            name="kafka_scaling",
            value=two,
            unit="events in a second of processor time, two processes",
            peer=f"{one:.0f}, one process",
            ratio=two / one,
            passed=two / one >= _RATIO,
        ),
    ]


def measured(kafka: LocalKafka, out: str, processes: int) -> Spent:
    """Run the flow over all events into a topic of this name.

    Raises:
        RuntimeError: not every event has a verdict there.
    """
    kafka.make_topic(out, _PARTITIONS)
    with TemporaryDirectory(prefix="headwater-bench-") as folder:
        init_db_dir(Path(folder), _PARTITIONS)
        addresses = [f"127.0.0.1:{free_port()}" for _ in range(processes)]
        command = [sys.executable, "-m", "bench.central.kafka", folder, kafka.brokers, out]
        children = [
            subprocess.Popen(
                [*command, str(number), *addresses],
                stdout=subprocess.PIPE,
                cwd=ROOT,
            )
            for number in range(processes)
        ]
        told = [json.loads(child.communicate()[0].splitlines()[-1]) for child in children]
    there = {record.key for record in read_whole(Cluster(brokers=kafka.brokers), out)}
    if len(there) != _EVENTS:
        raise RuntimeError(f"bench: {_EVENTS} events in, {len(there)} verdicts out; the figure is none")
    return Spent(max(each["wall_s"] for each in told), sum(each["cpu_s"] for each in told))


@contextmanager
def _broker() -> Iterator[LocalKafka]:
    """A broker that holds the events; it leaves the last core to the flow."""
    cores = os.sched_getaffinity(0)
    with TemporaryDirectory(prefix="headwater-bench-") as folder:
        kafka = LocalKafka(Path(folder))
        os.sched_setaffinity(0, cores - {max(cores)} or cores)
        try:
            kafka.start()
        finally:
            os.sched_setaffinity(0, cores)
        try:
            _fill(kafka)
            yield kafka
        finally:
            kafka.stop()


def _fill(kafka: LocalKafka) -> None:
    kafka.make_topic(_IN, _PARTITIONS)
    numbers = iter(range(_EVENTS))
    publishing = Publishing(
        cluster=Cluster(brokers=kafka.brokers), topic=_IN, key_of=lambda _: str(next(numbers)).encode()
    )
    carrier = KafkaCarrier(publishing)
    events = lines(_EVENTS)
    while some := list(islice(events, _TOGETHER)):
        carrier.deliver(some)
    carrier.close()


def run(folder: Path, brokers: str, out: str, process: int, addresses: list[str]) -> Spent:
    """Run the flow until all that is in the topic was read."""
    stop, cluster, processes = Flag(), Cluster(brokers=brokers), len(addresses)

    def topic(name: str, to: str) -> CourierSink[Any]:
        return CourierSink(
            name,
            lambda: KafkaCarrier(Publishing(cluster=cluster, topic=to, key_of=id_of)),
            lambda records: [wire.encode(record) for record in records],
            folder / f"{name}-{process}.backlog",
            stop=stop,
            limits=Limits(patience_s=_PATIENCE_S),
            process=process,
            processes=processes,
        )

    flow = triage(
        KafkaSource(
            Consuming(
                cluster=cluster,
                topic=_IN,
                group=out,
                name="events",
                slots=_PARTITIONS,
                process=process,
                processes=processes,
            ),
            stop,
            drain=True,
        ),
        Current(table()),
        Current(Policy(cache=CacheRules(enabled=False))),  # a table is faster than any cache
        [Outlet("verdicts", topic("verdicts", out))],
        topic("letters", f"{out}-letters"),
        readings={},
        repeats=Repeats(),
        cache=VerdictCache(b"bench"),
        window_events=_WINDOW,
        wait=stop.wait,
        observer=Unobserved(),
        lane=str(process),
    )
    wall, cpu = perf_counter(), process_time()
    cli_main(
        flow,
        process_id=process if processes > 1 else None,
        addresses=addresses if processes > 1 else None,
        epoch_interval=_EPOCH,
        recovery_config=RecoveryConfig(folder),
    )
    return Spent(perf_counter() - wall, process_time() - cpu)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        _folder, _brokers, _out, _process, *_addresses = sys.argv[1:]
        cores = sorted(os.sched_getaffinity(0))
        # Each on one of its own: a process has several threads and one lock, which is dear to hand from core to core.
        os.sched_setaffinity(0, {cores[-1 - int(_process) % len(cores)]})
        print(wire.encode(run(Path(_folder), _brokers, _out, int(_process), _addresses)).decode())
    else:
        print(wire.encode_lines(rows()).decode(), end="")
