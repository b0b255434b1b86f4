"""A real S3 on loopback, for tests: S3Proxy over a folder, fetched once by Maven, killed and stopped at will."""

import socket
from pathlib import Path

from central.java_server import JavaServer
from dataflows.running.child import free_port

ACCESS_KEY, SECRET_KEY = "headwater", "known-to-the-tests"

_PROPERTIES = """
s3proxy.endpoint=http://127.0.0.1:{port}
s3proxy.authorization=aws-v4
s3proxy.identity={access_key}
s3proxy.credential={secret_key}
jclouds.provider=filesystem-nio2
jclouds.filesystem.basedir={data}
"""
_LOGGING = """
<configuration>
  <appender name="out" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%d{HH:mm:ss.SSS} %p %c{1} %m%n</pattern></encoder>
  </appender>
  <root level="info"><appender-ref ref="out"/></root>
</configuration>
"""


class LocalS3(JavaServer):
    """One server; it lets nobody in without a signature, and what it took survives SIGTERM and SIGKILL."""

    def __init__(self, directory: Path) -> None:
        """Make the folder.

        Raises:
            UnavailableError: its jars cannot be had.
        """
        super().__init__("s3proxy", directory)
        (directory / "logback.xml").write_text(_LOGGING)
        self._classpath = f"{directory}:{self._classpath}"
        self._data = directory / "data"
        self._data.mkdir(exist_ok=True)
        self.port = free_port()
        self._properties = directory / "s3proxy.properties"
        self._properties.write_text(
            _PROPERTIES.format(port=self.port, access_key=ACCESS_KEY, secret_key=SECRET_KEY, data=self._data)
        )

    def start(self) -> None:
        """Return when the server answers.

        Raises:
            UnavailableError: it ended, or does not answer in time.
        """
        self._start("org.gaul.s3proxy.Main", "--properties", str(self._properties), answers=self._answers)

    def make_bucket(self, name: str) -> None:
        (self._data / name).mkdir()

    def url(self, bucket: str, prefix: str = "") -> str:
        """Return what the warehouse calls a place in a bucket."""
        return f"s3://{bucket}/{prefix}?endpoint=http://127.0.0.1:{self.port}"

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0
