"""kill -9 at random moments under load: what was accepted has one verdict each, whatever was killed."""

import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from random import Random

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from tests.faults.gateway import Gateway, kill_intake, wait_until
from tests.real.mosquitto import Mosquitto

_FILE_AND_MQTT = """
[[sources]]
kind = "file"
name = "tail"
path = "{tail}"
poll_interval_s = 0.05
[[sources]]
kind = "mqtt"
name = "devices"
port = {port}
topics = ["devices/+/log"]
"""


class Load:
    """Writes to a file, publishes and sends over TCP, each line once and without end, until told to stop."""

    def __init__(self, gateway: Gateway, tail: Path, broker: Mosquitto) -> None:
        self._gateway = gateway
        self._tail = tail
        self._stop = threading.Event()
        self._publisher = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        self._publisher.connect("127.0.0.1", broker.port)
        self._publisher.loop_start()
        self.written: list[str] = []
        self.published: list[str] = []
        self.offered: set[str] = set()  # over TCP: what was not read when the gateway died was never accepted
        self._threads = [threading.Thread(target=each) for each in (self._write, self._publish, self._offer)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
        self._publisher.disconnect()
        self._publisher.loop_stop()

    def _lines(self, name: str) -> Iterator[str]:
        for number in count():
            if self._stop.wait(0.01):
                return
            yield f"{name} {number} connection from 192.0.2.{number % 256}"

    def _write(self) -> None:
        with self._tail.open("a", encoding="utf-8") as file:
            for line in self._lines("tail"):
                file.write(line + "\n")
                file.flush()
                self.written.append(line)

    def _publish(self) -> None:
        for line in self._lines("mqtt"):
            self._publisher.publish("devices/7/log", line, qos=1).wait_for_publish(30)
            self.published.append(line)

    def _offer(self) -> None:
        lines = self._lines("tcp")
        for line in lines:
            try:
                with self._gateway.connect() as sock:
                    self._send(sock, line)
                    for each in lines:
                        self._send(sock, each)
            except OSError:  # killed: connect again with the next line
                continue

    def _send(self, sock: socket.socket, line: str) -> None:
        self.offered.add(f"<14>{line}")
        sock.sendall(f"<14>{line}\n".encode())


@pytest.mark.server("mosquitto")
@pytest.mark.parametrize("kills", [5, pytest.param(100, marks=pytest.mark.slow)])
def test_every_accepted_event_has_one_verdict_after_kills_at_random_moments(
    tmp_path: Path, quick_model: Path, kills: int, progress: Callable[[str], None]
) -> None:
    chance = Random(kills)
    tail = tmp_path / "app.log"
    tail.touch()
    broker = Mosquitto(tmp_path / "broker")
    broker.start()
    gateway = Gateway(tmp_path / "gw", quick_model, _FILE_AND_MQTT.format(tail=tail, port=broker.port))
    load = Load(gateway, tail, broker)
    try:
        gateway.start()  # subscribes: a broker keeps nothing for a session that it does not know
        load.start()
        for number in range(kills):
            progress(f"kill {number} of {kills}; {len(load.written)} lines, {len(load.published)} messages")
            if number % 4 != 3:  # every fourth time it is not even up
                gateway.await_ready()
            threading.Event().wait(chance.uniform(0.0, 1.5))
            if number % 3 == 1:  # not its own end of the lifeline, but the intake itself
                kill_intake(gateway)
            gateway.process.kill()
            gateway.process.start()
        gateway.await_ready()
        wait_until(lambda: gateway.texts("tail") and gateway.texts("devices"), gateway.process.log_tail)
        load.stop()
        progress(f"the answers to {len(load.written)} lines and {len(load.published)} messages")
        assert gateway.await_answers(len(load.written), "tail") == Counter(load.written)
        assert gateway.await_answers(len(load.published), "devices") == Counter(load.published)
        accepted = gateway.accepted("tcp")
        texts = gateway.await_answers(accepted, "tcp")
        assert gateway.process.stop()[0] == 0
        assert gateway.texts("tcp").total() == accepted == gateway.accepted("tcp")
        assert set(texts.values()) == {1}
        assert set(texts) <= load.offered
        assert not gateway.buried("tcp")
    finally:
        load.stop()
        gateway.process.kill()
        broker.stop()
