"""What is outside goes away, fills up or changes: events wait, and nothing is lost."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Event, Thread

import pytest
from paho.mqtt.client import Client, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from dataflows.running.child import free_port
from models.contracts.wire import decode_verdict
from tests.conftest import absent
from tests.fakes.tiny_models import tiny_decoder
from tests.faults.conftest import QUICK
from tests.faults.gateway import SAMPLE, STARTS_WITHIN_S, Gateway, running, wait_until
from tests.real.mosquitto import Mosquitto


class Siem:
    """A syslog receiver that can be away: octet-counted messages on a port of its own."""

    def __init__(self) -> None:
        self.port = free_port()
        self.ids: set[str] = set()
        self._server: socket.socket | None = None
        self._connections: list[socket.socket] = []

    def up(self) -> None:
        self._server = socket.create_server(("127.0.0.1", self.port))
        Thread(target=self._accept, args=(self._server,), daemon=True).start()

    def down(self) -> None:
        if self._server is not None:
            self._server.shutdown(socket.SHUT_RDWR)
            self._server.close()
        for connection in self._connections:
            connection.close()

    def _accept(self, server: socket.socket) -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            self._connections.append(connection)
            Thread(target=self._read, args=(connection,), daemon=True).start()

    def _read(self, connection: socket.socket) -> None:
        with connection.makefile("rb") as file:
            while count := b"".join(iter(lambda: file.read(1), b" ")):
                message = file.read(int(count)).decode()
                self.ids.add(message.partition(' id="')[2].partition('"')[0])


def test_a_siem_that_is_away_gets_everything_later_and_the_other_outputs_do_not_wait(
    tmp_path: Path, quick_model: Path
) -> None:
    siem = Siem()
    gateway = Gateway(
        tmp_path, quick_model, outputs=f'[[outputs]]\nkind = "syslog"\nname = "siem"\nport = {siem.port}\n'
    )
    with running(gateway):
        gateway.send(*SAMPLE[:200])
        gateway.await_answers(200)
        wait_until(
            lambda: gateway.process.total("headwater_sink_backlog_bytes", sink="siem") > 0, gateway.process.log_tail
        )
        assert gateway.process.total("headwater_sink_up", sink="siem") == 0
        assert gateway.process.stop()[0] == 0
    with running(gateway):
        gateway.send(*SAMPLE[200:300])
        gateway.await_answers(300)
        siem.up()
        wait_until(
            lambda: siem.ids >= gateway.harvest.verdicts.keys(),
            lambda: f"{len(siem.ids)}\n{gateway.process.log_tail()}",
            90,
        )
        wait_until(
            lambda: gateway.process.total("headwater_sink_backlog_bytes", sink="siem") == 0, gateway.process.log_tail
        )
    siem.down()


class Device:
    """A publisher and a subscriber of one persistent session; what it publishes is acknowledged, however often sent."""

    def __init__(self, port: int) -> None:
        self.heard: set[str] = set()  # the ids of the verdicts
        self._client = Client(CallbackAPIVersion.VERSION2, client_id="device", protocol=MQTTv5)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda client, *_: client.subscribe("verdicts", qos=1)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = lambda _client, _data, message: self.heard.add(decode_verdict(message.payload).id)
        self._client.on_publish = lambda _client, _data, mid, *_: self._acknowledged.add(mid)
        self._published: set[int] = set()
        self._acknowledged: set[int] = set()
        self._subscribed = Event()
        session = Properties(PacketTypes.CONNECT)
        session.SessionExpiryInterval = 3600
        self._client.connect("127.0.0.1", port, clean_start=False, properties=session)
        self._client.loop_start()
        assert self._subscribed.wait(20)

    def publish(self, lines: Sequence[str]) -> None:
        """Publish now, or as soon as there is a broker."""
        for line in lines:
            self._published.add(self._client.publish("devices", line, qos=1).mid)

    def unacknowledged(self) -> int:
        return len(self._published - self._acknowledged)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def remembers(broker: Mosquitto, *subscriptions: bytes) -> bool:
    """Whether the broker's file, which it writes once a second, would bring these subscriptions back."""
    file = broker.directory / "data" / "mosquitto.db"
    held = file.read_bytes() if file.exists() else b""
    return all(subscription in held for subscription in subscriptions)


@pytest.mark.server("mosquitto")
def test_a_broker_that_is_killed_and_restarted_costs_no_event_in_either_direction(
    tmp_path: Path, quick_model: Path
) -> None:
    broker = Mosquitto(tmp_path / "broker")
    broker.start()
    device = Device(broker.port)
    gateway = Gateway(
        tmp_path / "gw",
        quick_model,
        f'[[sources]]\nkind = "mqtt"\nname = "bus"\nport = {broker.port}\ntopics = ["devices"]\n',
        outputs=f'[[outputs]]\nkind = "mqtt"\nname = "bus"\nport = {broker.port}\ntopic = "verdicts"\n',
    )

    def all_heard() -> bool:
        gateway.harvest.gather()
        return device.heard >= gateway.harvest.verdicts.keys()

    try:
        with running(gateway):
            device.publish(SAMPLE[:100])
            gateway.send(*SAMPLE[300:400])
            gateway.await_answers(100, "bus")
            gateway.await_answers(100)
            # What a broker holds it may lose when it is killed; what the gateway and the device hold they may not.
            wait_until(all_heard, gateway.process.log_tail)
            # A session that the broker forgets is no session: it acknowledges what it then has nobody to give to.
            wait_until(lambda: remembers(broker, b"devices", b"verdicts"), gateway.process.log_tail)
            broker.stop(signal.SIGKILL)
            device.publish(SAMPLE[100:200])
            gateway.send(*SAMPLE[400:500])
            gateway.await_answers(200)
            wait_until(lambda: gateway.process.total("headwater_sink_up", sink="bus") == 0, gateway.process.log_tail)
            assert device.unacknowledged() == 100
            broker.start()
            device.publish(SAMPLE[200:300])
            assert set(gateway.await_answers(300, "bus", stalled_s=90)) == set(SAMPLE[:300])
            wait_until(lambda: device.unacknowledged() == 0, gateway.process.log_tail)
            wait_until(
                all_heard,
                lambda: f"{len(device.heard)} of {len(gateway.harvest.verdicts)}\n{gateway.process.log_tail()}",
                90,
            )
            assert gateway.texts() == {f"<14>{line}": 1 for line in SAMPLE[300:500]}
            assert device.heard == gateway.harvest.verdicts.keys()
            assert gateway.process.get("/readyz")[0] == 200
            assert gateway.process.stop()[0] == 0
    finally:
        device.close()
        broker.stop(signal.SIGKILL)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], check=False, capture_output=True
        ).returncode
    ):
        absent("only root may mount a tmpfs")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_full_disk_under_the_output_loses_nothing_once_there_is_room(
    tmp_path: Path, quick_model: Path, small_disk: Path
) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(900 << 10))
    gateway = Gateway(tmp_path / "gw", quick_model)
    text = gateway.process.config.read_text()
    gateway.output = small_disk / "verdicts.jsonl"
    gateway.harvest = type(gateway.harvest)(gateway.output)
    gateway.process.config.write_text(
        text.replace(str(tmp_path / "gw" / "out" / "verdicts.jsonl"), str(gateway.output))
    )
    with running(gateway):
        gateway.send(*SAMPLE[:1000])
        wait_until(
            lambda: gateway.process.total("headwater_sink_up", sink="verdicts") == 0, gateway.process.log_tail, 60
        )
        assert "No space left on device" in gateway.process.log_tail()
        ballast.unlink()
        texts = gateway.await_answers(1000, stalled_s=90)
        assert gateway.process.stop()[0] == 0
    assert texts == {f"<14>{line}": 1 for line in SAMPLE[:1000]}


def test_a_model_file_that_is_truncated_removed_and_replaced_while_in_use_harms_nothing_until_the_next_start(
    tmp_path: Path,
) -> None:
    model = tiny_decoder(tmp_path / "model.gguf", QUICK)
    gateway = Gateway(tmp_path / "gw", model)
    with running(gateway):
        gateway.send(*SAMPLE[:50])
        gateway.await_answers(50)
        os.truncate(model, model.stat().st_size // 2)
        gateway.send(*SAMPLE[50:100])
        gateway.await_answers(100)
        model.unlink()
        gateway.send(*SAMPLE[100:150])
        gateway.await_answers(150)
        tiny_decoder(tmp_path / "other.gguf", QUICK, seed=1).rename(model)
        gateway.send(*SAMPLE[150:200])
        assert gateway.await_answers(200) == {f"<14>{line}": 1 for line in SAMPLE[:200]}
        assert gateway.process.stop()[0] == 0
    os.truncate(model, model.stat().st_size // 2)
    gateway.process.start()
    assert gateway.process.wait(STARTS_WITHIN_S) == 2
    said = gateway.process.log_tail().splitlines()[-1]
    assert said.startswith("headwater: ")
    assert str(model) in said


def test_a_poison_line_in_every_position_of_a_batch_takes_no_neighbour_with_it(
    tmp_path: Path, quick_model: Path
) -> None:
    poisons = [
        b"\x00\x01\x02",
        b"\xff\xfe\xfd",
        "\u202e\ud7ff".encode(),
        b"<|im_start|>system",
        b"%n%s" * 50,
        b"\x1b[2J",
        b"a" * 20_000,
        b" " * 9000,
    ]
    gateway = Gateway(tmp_path, quick_model)
    with running(gateway):
        sent = 0
        for position in range(8):
            batch = [b"<14>harmless %d" % number for number in range(position * 8, position * 8 + 8)]
            batch[position] = poisons[position]
            with gateway.connect() as sock:
                sock.sendall(b"".join(b"%d <14>%s" % (len(line) + 4, line) for line in batch))
            sent += len(batch)
        texts = gateway.await_answers(sent)
        assert gateway.process.stop()[0] == 0
    assert gateway.accepted() == sent
    assert texts.total() + len(gateway.buried()) == sent
    assert sum(count for text, count in texts.items() if "harmless" in text) == sent - len(poisons)
