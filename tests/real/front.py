"""A proxy before a server, as operators have one: TLS with certificates on both sides, a password, a longest body."""

import ssl
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


class Front(ThreadingHTTPServer):
    """Says 401 to another password and 413 to a longer body; what it lets through goes on as it came."""

    def __init__(self, behind: int, tls: ssl.SSLContext | None, password: str, most_bytes: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.behind = behind
        self.wanted = "Basic " + b64encode(f"headwater:{password}".encode()).decode() if password else None
        self.most_bytes = most_bytes
        self.too_large: list[int] = []


@contextmanager
def before(
    behind: int, *, tls: ssl.SSLContext | None = None, password: str = "", most_bytes: int = 1 << 30
) -> Iterator[Front]:
    """Run a proxy before a port of loopback."""
    with Front(behind, tls, password, most_bytes) as front:
        thread = Thread(target=front.serve_forever)
        thread.start()
        try:
            yield front
        finally:
            front.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: Front

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.server.wanted not in (None, self.headers.get("Authorization")):
            self._say(401, "text/plain", b"Unauthorized")
        elif len(body) > self.server.most_bytes:
            self.server.too_large.append(len(body))
            self._say(413, "text/html", b"<h1>413 Request Entity Too Large</h1>")
        else:
            connection = HTTPConnection("127.0.0.1", self.server.behind, timeout=60)
            kind = self.headers.get("Content-Type", "application/json")
            connection.request(self.command, self.path, body, {"Content-Type": kind})
            found = connection.getresponse()
            self._say(found.status, found.headers["Content-Type"], found.read())
            connection.close()

    do_PUT = do_POST = do_GET  # noqa: N815 - their names

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _say(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
