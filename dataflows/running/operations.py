"""`/healthz`, `/readyz` and `/metrics` on loopback: what a supervisor, a balancer and Prometheus ask a flow.

The metrics stand in a registry of our own: bytewax's web server would bind every interface.
"""

import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import socket
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest

from dataflows.connectors.binding import unbindable
from models.contracts.errors import UnavailableError

_MAX_REQUESTS = 8  # at once; whoever asks more often has its connection closed
_REQUEST_TIMEOUT_S = 5.0


class OperationsServer:
    """Answers on loopback from a few threads, each request within a few seconds."""

    def __init__(
        self,
        host: str,
        port: int,
        registry: CollectorRegistry,
        unhealthy: Callable[[], list[str]],
        unready: Callable[[], list[str]],
    ) -> None:
        """Bind at once, so that a port in use is an error of the start.

        Args:
            host: where to listen.
            port: 0 asks the kernel for one.
            registry: what `/metrics` shows.
            unhealthy: why a restart would help; nothing where it would not. It touches no disk, because one that fails
                is nothing a restart would mend.
            unready: why events should go elsewhere for now.

        Raises:
            ConfigError: the address cannot be bound.
            UnavailableError: it cannot be bound now; another start may help.
        """
        handler = type(
            "_BoundHandler",
            (_Handler,),
            {"registry": registry, "unhealthy": staticmethod(unhealthy), "unready": staticmethod(unready)},
        )
        try:
            self._server = _BoundedServer((host, port), handler)
        except OSError as error:
            raise unbindable("`operations`", "tcp", host, port, error) from error
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="operations", daemon=True)

    @property
    def port(self) -> int:
        """Where it listens; differs from the configuration where that says 0."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()


class _BoundedServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64  # waits in the kernel; shorter, and a burst of probes would wait for a resent SYN

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._slots = threading.BoundedSemaphore(_MAX_REQUESTS)
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._slots.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, request: socket | tuple[bytes, socket], client_address: Any) -> None:
        """Say nothing: a client that hangs up early is not our business."""


class _Handler(BaseHTTPRequestHandler):
    registry: CollectorRegistry
    unhealthy: Callable[[], list[str]]
    unready: Callable[[], list[str]]

    timeout = _REQUEST_TIMEOUT_S  # for each read of the socket
    server_version = "headwater"
    sys_version = ""

    def do_GET(self) -> None:
        try:
            self._look_up()
        except UnavailableError as error:
            self._answer_reasons([str(error)])

    def _look_up(self) -> None:
        match self.path.partition("?")[0]:
            case "/metrics":
                self._answer(HTTPStatus.OK, generate_latest(self.registry), "text/plain; version=0.0.4; charset=utf-8")
            case "/healthz":
                self._answer_reasons(self.unhealthy())
            case "/readyz":
                self._answer_reasons(self.unready())
            case _:
                self._answer(HTTPStatus.NOT_FOUND, b"/healthz, /readyz or /metrics\n", "text/plain; charset=utf-8")

    def _answer_reasons(self, reasons: list[str]) -> None:
        status = HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK
        self._answer(status, ("\n".join(reasons or ["ok"]) + "\n").encode(), "text/plain; charset=utf-8")

    def _answer(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in http.server
        """Nothing: a scrape is no decision."""
