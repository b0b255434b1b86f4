"""From the deliveries that the configuration names to the sinks of the flow that makes them."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from central.config import Config, Deliver, Index, Siem
from central.deliveries.index import Cluster as Search
from central.deliveries.index import IndexCarrier
from central.deliveries.queue import QueueCarrier
from central.flow_process import FlowProcess
from central.wiring import queue_url
from dataflows.connectors import cef
from dataflows.connectors.courier import Carrier, CourierSink, Limits
from dataflows.connectors.siem import SiemCarrier
from dataflows.connectors.tls import client_context
from dataflows.sections import ClientTls, read_password
from dataflows.triage import Outlet
from models.contracts.event import DeadLetter
from models.contracts.policy import ROUTES, Route
from models.contracts.verdict import Verdict
from models.contracts.wire import encode

Encode = Callable[[list[Verdict]], Sequence[bytes]]


def outlets(config: Config, process: FlowProcess, letters: CourierSink[DeadLetter]) -> list[Outlet]:
    """Return one outlet per delivery.

    Raises:
        ConfigError: a delivery cannot work as configured.
    """

    def outlet(
        name: str,
        carrier: Callable[[], Carrier],
        written: Encode = _each_encoded,
        routes: tuple[Route, ...] = ROUTES,
        **limits: Any,
    ) -> Outlet:
        sink: CourierSink[Verdict] = CourierSink(
            name,
            carrier,
            written,
            process.state_dir / "backlog" / f"{name}.sqlite3",
            stop=process.stop,
            limits=Limits(backlog_bytes=config.deliver.backlog_max_bytes, **limits),
            observer=process.meters,
            dead_letters=letters,
            process=process.process,
            processes=process.processes,
        )
        return Outlet(f"to-{name}", sink, routes)

    found = [outlet("queue", partial(QueueCarrier, queue_url(config)))]
    wanted: Deliver = config.deliver
    if wanted.index is not None:
        found.append(outlet("index", partial(IndexCarrier, search_cluster(wanted.index))))
    if wanted.siem is not None:
        found.append(outlet("siem", _siem(wanted.siem), _cef(wanted.siem, config.centre.name), wanted.siem.routes))
    return found


def search_cluster(index: Index) -> Search:
    """Return where the index is, and who we are there.

    Raises:
        ConfigError: the URL, a certificate or the password cannot be used.
    """
    where = "`deliver.index`"
    return Search(
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


def _each_encoded(verdicts: list[Verdict]) -> list[bytes]:
    return [encode(verdict) for verdict in verdicts]
