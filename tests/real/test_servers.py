"""What a new user tries a centre with: both servers by one command, and nothing left behind."""

import re
import signal
import socket
import subprocess
import sys

import psutil
import pytest

from central import java_server
from dataflows.connectors.kafka import Cluster
from dataflows.connectors.kafka_admin import Admin
from tests.conftest import absent

pytestmark = [pytest.mark.server("mosquitto"), pytest.mark.timeout(600)]
_SERVE = [sys.executable, "-m", "central", "servers"]


def test_both_servers_answer_until_they_are_told_to_stop() -> None:
    if java_server.missing():
        absent(java_server.missing())
    with subprocess.Popen(
        [*_SERVE, "--kafka-port", "0", "--mqtt-port", "0"], stderr=subprocess.PIPE, text=True
    ) as serving:
        assert serving.stderr is not None
        try:
            said = next(line for line in serving.stderr if line.startswith("Kafka on"))
            kafka, mqtt = map(int, re.findall(r"127\.0\.0\.1:(\d+)", said))
            assert Admin(Cluster(brokers=f"127.0.0.1:{kafka}")).find(["nothing"]) == {"nothing": None}
            socket.create_connection(("127.0.0.1", mqtt), timeout=10).close()
        finally:
            serving.send_signal(signal.SIGTERM)
        assert serving.wait(60) == 0
    for port in (kafka, mqtt):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=10)


def test_where_one_of_them_ends_that_is_said_and_the_other_ends_as_well() -> None:
    if java_server.missing():
        absent(java_server.missing())
    with subprocess.Popen(
        [*_SERVE, "--kafka-port", "0", "--mqtt-port", "0"], stderr=subprocess.PIPE, text=True
    ) as serving:
        assert serving.stderr is not None
        said = next(line for line in serving.stderr if line.startswith("Kafka on"))
        (java,) = (child for child in psutil.Process(serving.pid).children() if "java" in child.name())
        java.kill()
        assert serving.wait(60) == 1
        assert "Kafka has ended; start both anew" in serving.stderr.read()
    for port in map(int, re.findall(r"127\.0\.0\.1:(\d+)", said)):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=10)


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
