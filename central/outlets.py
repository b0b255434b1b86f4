"""From the deliveries that the configuration names to the sinks of the flow that makes them."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from central.config import Config, Index, Siem
from central.dead_letters import DeadLetterCarrier
from central.deliveries.index import IndexCarrier, IndexCluster
from central.deliveries.queue import QueueCarrier
from central.deliveries.warehouse import WarehouseCarrier, gathering
from central.flow_process import FlowProcess
from central.warehouse import tables
from central.wiring import publishing, queue_url, warehouse_url
from dataflows.connectors import cef
from dataflows.connectors.courier import Carrier, CourierSink, Limits
from dataflows.connectors.kafka_publisher import KafkaCarrier, reason_of
from dataflows.connectors.siem import SiemCarrier
from dataflows.connectors.tls import client_context
from dataflows.sections import ClientTls, read_password
from dataflows.triage import Outlet
from models.contracts.event import DeadLetter
from models.contracts.verdict import Verdict
from models.contracts.wire import encode

Encode = Callable[[list[Verdict]], Sequence[bytes]]


class Sinks:
    """Makes the sinks of one process, each with a backlog of its own."""

    def __init__(self, config: Config, process: FlowProcess, letters: CourierSink[DeadLetter] | None) -> None:
        self._config = config
        self._process = process
        self._letters = letters

    def sink(
        self, name: str, carrier: Callable[[], Carrier], written: Any = None, limits: Limits | None = None
    ) -> CourierSink[Any]:
        """Return a sink; a payload is a record, encoded, unless it is `written` otherwise."""
        process = self._process
        return CourierSink(
            name,
            carrier,
            written or _each_encoded,
            process.state_dir / "backlog" / f"{name}.sqlite3",
            stop=process.stop,
            limits=limits or Limits(backlog_bytes=self._config.deliver.backlog_max_bytes),
            observer=process.meters,
            dead_letters=self._letters,
            process=process.process,
            processes=process.processes,
        )

    def to_topic(self, name: str, topic: str) -> CourierSink[Any]:
        """Return a sink to a topic of the centre."""
        return self.sink(name, partial(KafkaCarrier, publishing(self._config, topic)))

    def to_dead_letters(self, topic: str) -> CourierSink[DeadLetter]:
        """Return a sink to the topic of dead letters, which refuses none."""
        to = replace(publishing(self._config, topic), headers_of=reason_of)
        return self.sink("dead-letters", lambda: DeadLetterCarrier(KafkaCarrier(to)))

    def to_warehouse(self, name: str, table: tables.Table) -> CourierSink[Any]:
        """Return a sink to a table of the warehouse."""
        wanted = self._config.deliver
        limits = gathering(wanted.warehouse.gather_s, wanted.backlog_max_bytes)
        return self.sink(name, partial(WarehouseCarrier, warehouse_url(self._config), table), limits=limits)


def outlets(config: Config, sinks: Sinks) -> list[Outlet]:
    """Return one outlet per delivery.

    Raises:
        ConfigError: a delivery cannot work as configured.
    """
    found = [Outlet("to-queue", sinks.sink("queue", partial(QueueCarrier, queue_url(config))))]
    found.append(Outlet("to-warehouse", sinks.to_warehouse("warehouse", tables.VERDICTS)))
    wanted = config.deliver
    if wanted.index is not None:
        found.append(Outlet("to-index", sinks.sink("index", partial(IndexCarrier, search_cluster(wanted.index)))))
    if wanted.siem is not None:
        written = _cef(wanted.siem, config.centre.name)
        found.append(Outlet("to-siem", sinks.sink("siem", _siem(wanted.siem), written), wanted.siem.routes))
    return found


def search_cluster(index: Index) -> IndexCluster:
    """Return where the index is, and who we are there.

    Raises:
        ConfigError: the URL, a certificate or the password cannot be used.
    """
    where = "`deliver.index`"
    return IndexCluster(
        url=index.url,
        username=index.username,
        password=read_password(where, index.password_file),
        tls=_context(where, index.tls),
        prefix=index.prefix,
    )


def _siem(siem: Siem) -> Callable[[], Carrier]:
    return partial(SiemCarrier, siem.host, siem.port, _context("`deliver.siem`", siem.tls))


def _cef(siem: Siem, centre: str) -> Encode:
    style = cef.Cef(gateway=centre, severities={**cef.SEVERITIES, **siem.severity_by_label})
    return lambda verdicts: [cef.message(verdict, style) for verdict in verdicts]


def _context(where: str, tls: ClientTls | None) -> Any:
    return None if tls is None else client_context(where, tls.ca, tls.certificate, tls.key)


def _each_encoded(records: Sequence[Struct]) -> list[bytes]:
    return [encode(record) for record in records]
