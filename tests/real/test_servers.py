"""What a new user tries a centre with: both servers by one command, and nothing left behind."""

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from central import java_server
from dataflows.connectors.kafka import Cluster
from dataflows.connectors.kafka_admin import Admin
from tests.conftest import absent

pytestmark = [pytest.mark.server("mosquitto"), pytest.mark.timeout(600)]
_SERVE = [sys.executable, "-m", "central", "servers"]


@contextmanager
def serving() -> Iterator[tuple[subprocess.Popen[str], int, int]]:
    """Run both; yield the process with the ports of Kafka and of the broker. On leaving nobody answers at them."""
    if java_server.missing():
        absent(java_server.missing())
    command = [*_SERVE, "--kafka-port", "0", "--mqtt-port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            said = next(line for line in process.stderr if line.startswith("Kafka on"))
            kafka, mqtt = map(int, re.findall(r"127\.0\.0\.1:(\d+)", said))
            yield process, kafka, mqtt
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
    for port in (kafka, mqtt):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=10)


def test_both_servers_answer_until_they_are_told_to_stop() -> None:
    with serving() as (process, kafka, mqtt):
        assert Admin(Cluster(brokers=f"127.0.0.1:{kafka}")).find(["nothing"]) == {"nothing": None}
        socket.create_connection(("127.0.0.1", mqtt), timeout=10).close()

    assert process.returncode == 0


def test_where_one_of_them_ends_that_is_said_and_the_other_ends_as_well() -> None:
    with serving() as (process, _, _):
        (java,) = (child for child in psutil.Process(process.pid).children() if "java" in child.name())
        java.kill()
        assert process.wait(60) == 1
        assert process.stderr is not None
        assert "Kafka has ended; start both anew" in process.stderr.read()


def test_a_port_that_is_taken_is_said() -> None:
    if java_server.missing():
        absent(java_server.missing())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [*_SERVE, "--kafka-port", str(port)], capture_output=True, text=True, timeout=120, check=False
        )

    assert done.returncode == 1
    assert f"port {port}: Address already in use; give another by `--kafka-port`" in done.stderr
