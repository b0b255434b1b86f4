"""The triage flow as the centre runs it, in a process of its own: Kafka, table, Kafka; alone or as one of a cluster.

    python -m tests.flows.kafka_process FOLDER BROKERS PREFIX [--drain] [--process NUMBER --addresses ADDRESS ADDRESS]

It reads text from `events`, or with `--questions` verdicts from `questions`, and stops on SIGTERM, or with `--drain`
where the topic ends. Topics and the recovery store, of all processes of the cluster, are there already.
"""

import signal
from argparse import ArgumentParser
from datetime import timedelta
from pathlib import Path
from threading import Event
from typing import Any

from bytewax.recovery import RecoveryConfig
from bytewax.run import cli_main

from central.topics import Names
from dataflows.backoff import Backoff
from dataflows.cache.verdict_cache import VerdictCache
from dataflows.connectors.courier import CourierSink, Limits
from dataflows.connectors.kafka import Cluster
from dataflows.connectors.kafka_publisher import KafkaCarrier, Publishing, id_of, reason_of
from dataflows.connectors.kafka_source import Consuming, KafkaSource
from dataflows.observer import Unobserved
from dataflows.operators.decode import Reading
from dataflows.operators.repeats import Repeats
from dataflows.triage import Outlet, triage
from models.classifier import Classifier, Current
from models.contracts import wire
from models.contracts.policy import Policy
from models.contracts.release import Release
from models.table import TableClassifier
from tests.fakes.classifier import TASK

SLOTS = 4
_LIMITS = Limits(backoff=Backoff(first_s=0.05, most_s=0.5), patience_s=0.5)


def main(
    folder: Path, brokers: str, names: Names, process: int, addresses: list[str], *, questions: bool, drain: bool
) -> None:
    stop = Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    cluster, processes = Cluster(brokers=brokers), max(1, len(addresses))

    def to(name: str, topic: str, **more: Any) -> CourierSink[Any]:
        publishing = Publishing(cluster=cluster, topic=topic, key_of=id_of, stall_s=5.0, **more)
        return CourierSink(
            name,
            lambda: KafkaCarrier(publishing),
            lambda records: [wire.encode(record) for record in records],
            folder / f"{name}-{process}.sqlite3",
            stop=stop,
            limits=_LIMITS,
            process=process,
            processes=processes,
        )

    consuming = Consuming(
        cluster=cluster,
        topic=names.questions if questions else names.events,
        group=names.prefix,
        name="events",
        slots=SLOTS,
        process=process,
        processes=processes,
        batch_records=50,
        look_every_s=0.5,
    )
    classifier: Current[Classifier] = Current(TableClassifier(Release(name="table", number=1, task=TASK)))
    flow = triage(
        KafkaSource(consuming, stop, drain=drain),
        classifier,
        Current(Policy()),
        [Outlet("verdicts", to("verdicts", names.verdicts))],
        to("dead-letters", names.dead_letters, headers_of=reason_of),
        readings={"events": Reading(kind="questions")} if questions else {},
        repeats=Repeats(),
        cache=VerdictCache(b"secret"),
        window_events=50,
        wait=stop.wait,
        observer=Unobserved(),
        lane=str(process),
    )
    cli_main(
        flow,
        process_id=process if processes > 1 else None,
        addresses=addresses if processes > 1 else None,
        epoch_interval=timedelta(milliseconds=50),
        recovery_config=RecoveryConfig(folder / "recovery"),
    )


if __name__ == "__main__":
    parser = ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("brokers")
    parser.add_argument("prefix")
    parser.add_argument("--questions", action="store_true")
    parser.add_argument("--drain", action="store_true")
    parser.add_argument("--process", type=int, default=0)
    parser.add_argument("--addresses", nargs="*", default=[])
    given = parser.parse_args()
    main(
        given.folder,
        given.brokers,
        Names(given.prefix),
        given.process,
        given.addresses,
        questions=given.questions,
        drain=given.drain,
    )
