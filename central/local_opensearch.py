"""A real OpenSearch on loopback, for tests: one node without security, fetched once by Maven, killed at will."""

import socket
import uuid
from pathlib import Path

from opensearchpy import OpenSearch, OpenSearchException

from central.java_server import JavaServer
from dataflows.running.child import free_port
from models.contracts.errors import UnavailableError

_PORTS = range(9201, 9300)  # the runner takes no others
_MAIN = "org.codelibs.opensearch.runner.OpenSearchRunner"
# Of some twenty modules those that an index of ours needs: the node is up sooner, and smaller by a third.
_MODULES = "org.opensearch.transport.Netty4Plugin,org.opensearch.analysis.common.CommonAnalysisPlugin"

_SETTINGS = """
network.host: 127.0.0.1
transport.port: {transport}
discovery.type: single-node
cluster.routing.allocation.disk.threshold_enabled: false
{more}
"""


class LocalOpenSearch(JavaServer):
    """One node; what was acknowledged survives SIGTERM and SIGKILL."""

    def __init__(self, directory: Path, more: str = "") -> None:
        """Make the folder; `more` are lines for `opensearch.yml`.

        Raises:
            UnavailableError: its jars or a port cannot be had.
        """
        super().__init__("opensearch", directory)
        self.port = next(filter(_is_free, _PORTS), 0)
        if not self.port:
            raise UnavailableError(f"OpenSearch wants a port from {_PORTS.start} to {_PORTS.stop - 1}: all are in use")
        self._cluster = uuid.uuid4().hex
        settings = _SETTINGS.format(transport=free_port(), more=more)
        (directory / "opensearch.yml").write_text(settings)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Return when the node answers.

        Raises:
            UnavailableError: it ended, or does not answer in time.
        """
        client = self.client()
        try:
            self._start(
                _MAIN,
                *("-basePath", str(self._directory), "-confPath", str(self._directory)),
                *("-clusterName", self._cluster, "-numOfNode", "1", "-moduleTypes", _MODULES),
                *("-baseHttpPort", str(self.port - 1)),  # to which it adds the number of the node
                answers=lambda: self._answers(client),
            )
        finally:
            client.close()

    def client(self) -> OpenSearch:
        return OpenSearch([self.url], timeout=30, max_retries=0)

    def _answers(self, client: OpenSearch) -> bool:
        try:
            health = client.cluster.health(wait_for_status="yellow", timeout=2)
        except OpenSearchException:
            return False
        # Where the port was taken in the meantime, this is somebody else's.
        return bool(health["cluster_name"] == self._cluster)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
