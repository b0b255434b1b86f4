"""What `python -m bytewax.run central.deliver` loads: verdicts from Kafka to the queue, the warehouse and the others.

With `-i` and `-a` it is one process of a cluster, as triage is.
"""

import os
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from bytewax.dataflow import Dataflow

from central.config import Config, config_path, read_config
from central.flow_process import FlowProcess
from central.outlets import outlets
from central.queue.publish import AnswersRelay
from central.wiring import consuming, names_of, publishing, queue_url
from dataflows.connectors.courier import CourierSink, Limits
from dataflows.connectors.kafka_publisher import KafkaCarrier
from dataflows.connectors.kafka_source import KafkaSource
from dataflows.deliver import SOURCE, deliver
from dataflows.running import logs
from dataflows.running.pulse import PulsingSource
from dataflows.running.recovery import RunOptions, run_options
from dataflows.running.service import exit_code_of, ignore_until_open
from models.contracts.event import DeadLetter
from models.contracts.wire import encode

NAME = "deliver"


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
    source = KafkaSource(
        consuming(
            config,
            names.verdicts,
            flow=NAME,
            source=SOURCE,
            process=process.process,
            processes=process.processes,
            batch_records=config.deliver.batch_records,
        ),
        process.stop,
    )
    letters: CourierSink[DeadLetter] = CourierSink(
        "dead-letters",
        partial(KafkaCarrier, publishing(config, names.dead_letters)),
        lambda records: [encode(record) for record in records],
        process.state_dir / "backlog" / "dead-letters.sqlite3",
        stop=process.stop,
        limits=Limits(backlog_bytes=config.deliver.backlog_max_bytes),
        observer=process.meters,
        process=process.process,
        processes=process.processes,
    )
    return deliver(
        PulsingSource(source, process.pulse),
        outlets(config, process, letters),
        letters,
        observer=process.meters,
        lane=process.lane,
    )
