"""The triage flow as a gateway runs it, in a process of its own: spool, recovery store, file and SIEM.

    python -m tests.flows.process FOLDER SIEM_PORT [--drain]

It stops on SIGTERM, or with `--drain` when the spool is empty.
"""

import signal
import sys
from datetime import timedelta
from pathlib import Path
from threading import Event
from typing import Any

from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.run import cli_main

from dataflows.backoff import Backoff
from dataflows.cache.verdict_cache import VerdictCache
from dataflows.connectors.courier import CourierSink, Limits
from dataflows.connectors.json_lines import JsonLinesCarrier
from dataflows.connectors.rfc5424 import Rfc5424, message
from dataflows.connectors.siem import SiemCarrier
from dataflows.connectors.spool_source import SpoolSource
from dataflows.observer import Unobserved
from dataflows.operators.repeats import Repeats
from dataflows.triage import Outlet, triage
from models.classifier import Classifier, Current
from models.contracts import wire
from models.contracts.policy import Policy
from tests.fakes.classifier import ScriptedClassifier

LIMITS = Limits(backoff=Backoff(first_s=0.05, most_s=0.5), patience_s=0.5)


def main(folder: Path, siem_port: int, *, drain: bool) -> None:
    stop = Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    recovery = folder / "recovery"
    if not recovery.exists():
        recovery.mkdir()
        init_db_dir(recovery, 1)

    def lines(name: str) -> CourierSink[Any]:
        return CourierSink(
            name,
            lambda: JsonLinesCarrier(folder / f"{name}.jsonl"),
            lambda records: [wire.encode_lines(records)],
            folder / f"{name}.sqlite3",
            stop=stop,
            limits=LIMITS,
        )

    siem: CourierSink[Any] = CourierSink(
        "siem",
        lambda: SiemCarrier("127.0.0.1", siem_port),
        lambda verdicts: [message(verdict, Rfc5424(gateway="gw")) for verdict in verdicts],
        folder / "siem.sqlite3",
        stop=stop,
        limits=LIMITS,
    )
    classifier: Current[Classifier] = Current(ScriptedClassifier())
    flow = triage(
        SpoolSource(folder / "spool.sqlite3", stop, batch_events=16, drain=drain),
        classifier,
        Current(Policy()),
        [Outlet("verdicts", lines("verdicts")), Outlet("siem", siem)],
        lines("dead_letters"),
        readings={},
        repeats=Repeats(),
        cache=VerdictCache(b"secret"),
        window_events=16,
        wait=stop.wait,
        observer=Unobserved(),
    )
    cli_main(flow, epoch_interval=timedelta(milliseconds=50), recovery_config=RecoveryConfig(recovery))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), drain="--drain" in sys.argv)
