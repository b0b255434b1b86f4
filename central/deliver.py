"""What `python -m bytewax.run central.deliver` loads: verdicts from Kafka to the queue, the warehouse and the others.

With `-i` and `-a` it is one process of a cluster, as triage is.
"""

import os
import sys
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource

from central.config import Config, config_path, read_config
from central.deliveries.queue import QueueCarrier
from central.flow_process import FlowProcess
from central.outlets import Sinks, outlets
from central.queue.publish import AnswersRelay
from central.warehouse import tables
from central.wiring import consuming, names_of, publishing, queue_url
from dataflows.connectors.joined_source import JoinedSource
from dataflows.connectors.kafka_publisher import KafkaCarrier
from dataflows.connectors.kafka_source import KafkaSource
from dataflows.deliver import ANSWERS, VERDICTS, Correlating, deliver
from dataflows.operators.incidents import Miss
from dataflows.running import logs
from dataflows.running.pulse import PulsingSource
from dataflows.running.recovery import RunOptions, run_options
from dataflows.running.service import exit_code_of, ignore_until_open

NAME = "deliver"

log = structlog.get_logger()


def flow() -> Dataflow:
    """Run the flow of the configuration in force and exit: 0 stopped, 2 cannot start as configured, 1 otherwise."""
    logs.configure()
    raise SystemExit(exit_code_of(lambda: run(config_path(), run_options(sys.argv[1:], os.environ))))


def run(path: Path, options: RunOptions) -> int:
    """Run the flow that `path` describes until a signal stops it; return its exit code.

    Raises:
        ConfigError: it cannot start as it is configured.
        UnavailableError: the disk does not let it start.
    """
    ignore_until_open()
    config = read_config(path)
    with ExitStack() as opened:
        process = DeliverProcess(config, options, opened)
        return process.run(lay_out(config, process))


class DeliverProcess(FlowProcess):
    """The flow's process; the first of a cluster also publishes what people answered while Kafka was away."""

    def __init__(self, config: Config, options: RunOptions, opened: ExitStack) -> None:
        super().__init__(NAME, config, config.deliver.operations, options, opened)
        names = names_of(config)
        self._relay = None
        if self.process == 0:
            self._relay = AnswersRelay(
                queue_url(config),
                partial(KafkaCarrier, publishing(config, names.answers)),
                partial(KafkaCarrier, publishing(config, names.verdicts)),
            )
            opened.callback(self._relay.close)

    def begin(self) -> None:
        super().begin()
        if self._relay is not None:
            self._relay.start()


def lay_out(config: Config, process: FlowProcess) -> Dataflow:
    """Lay the flow out."""
    names = names_of(config)
    sources: dict[str, FixedPartitionedSource[Any, Any]] = {
        name: KafkaSource(
            consuming(
                config,
                topic,
                flow=NAME,
                source=name,
                process=process.process,
                processes=process.processes,
                batch_records=config.deliver.batch_records,
            ),
            process.stop,
        )
        for name, topic in ((VERDICTS, names.verdicts), (ANSWERS, names.answers))
    }
    letters = Sinks(config, process, None).to_dead_letters(names.dead_letters)
    sinks = Sinks(config, process, letters)
    return deliver(
        PulsingSource(JoinedSource(sources), process.pulse),
        outlets(config, sinks),
        sinks.to_warehouse("warehouse-answers", tables.ANSWERS),
        letters,
        observer=process.meters,
        correlating=_correlating(config, sinks) if config.incidents else None,
        lane=process.lane,
    )


def _correlating(config: Config, sinks: Sinks) -> Correlating:
    return Correlating(
        rules=config.incidents,
        sinks={
            "incidents-to-queue": sinks.sink("incidents-to-queue", partial(QueueCarrier, queue_url(config))),
            "incidents-to-kafka": sinks.to_topic("incidents-to-kafka", names_of(config).incidents),
        },
        misses=_missed,
        clock=partial(datetime.now, UTC),
    )


def _missed(rule: str, why: Miss, times: int) -> None:
    log.info("verdicts_not_correlated", rule=rule, reason=why, verdicts=times)
