"""A bridge as a process of its own, between a real broker and a real Kafka; and gateways' verdicts for it."""

import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from time import monotonic, sleep, time

from central.local_kafka import LocalKafka
from central.topics import Names
from dataflows.connectors.group_commit import GroupCommit
from dataflows.connectors.kafka import Cluster
from dataflows.connectors.kafka_publisher import KafkaProducer, Outgoing
from dataflows.connectors.mqtt_answers import Answers, AnswersFetcher
from dataflows.connectors.mqtt_uplink import UplinkCarrier, Upward
from dataflows.connectors.spool import Spool, SpoolReader
from dataflows.running.child import free_port
from models.contracts.errors import UnavailableError
from models.contracts.event import full_id
from models.contracts.wire import decode_verdict, encode
from tests.fakes.verdicts import verdict
from tests.real.intake import wait_until
from tests.real.kafka import read_all
from tests.real.mosquitto import Mosquitto

_NOW_MS = int(time() * 1000)  # the bridge takes what was received of late

_RUN = """
import sys
from central.bridge import Bridge, run
from central.topics import Names
from dataflows.connectors.kafka import Cluster
from dataflows.connectors.tls import client_context
from dataflows.running import logs
from dataflows.sections import Operations

name, port, operations, brokers, prefix, *certificate = sys.argv[1:]
logs.configure()
tls = client_context("bridge", *certificate) if certificate else None
cluster = Cluster(brokers=brokers)
watched = Operations(port=int(operations))
bridge = Bridge(
    name=name, host="127.0.0.1", port=int(port), tls=tls, cluster=cluster, names=Names(prefix), operations=watched
)
sys.exit(run(bridge))
"""


class BridgeProcess:
    """Started, stopped and killed."""

    def __init__(
        self,
        directory: Path,
        broker: Mosquitto,
        kafka: LocalKafka,
        names: Names,
        name: str = "bridge",
        *,
        certificate: str = "",
    ) -> None:
        self.log = directory / f"{name}.log"
        self.operations_port = free_port()
        self._command = [
            sys.executable,
            "-c",
            _RUN,
            name,
            str(broker.port),
            str(self.operations_port),
            kafka.brokers,
            names.prefix,
        ]
        if certificate:
            files = ("ca.pem", f"{certificate}.pem", f"{certificate}.pem")
            self._command += [str(directory / each) for each in files]
        self._process: subprocess.Popen[bytes] | None = None
        self._starts = 0

    def start(self) -> None:
        """Return when it carries."""
        self.launch()
        wait_until(lambda: self.said("bridge_carries_up") >= self._starts, f"the bridge {self.log}", 60.0)

    def launch(self) -> None:
        self._starts = self.said("bridge_carries_up") + 1
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it; return its exit code."""
        process, self._process = self._process, None
        if process is None:
            return 0
        with suppress(ProcessLookupError):
            process.send_signal(number)
        return process.wait(30)

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def get(self, path: str) -> tuple[int, str]:
        """Ask it how it is."""
        connection = HTTPConnection("127.0.0.1", self.operations_port, timeout=10)
        with closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def said(self, event: str) -> int:
        return self.log.read_text().count(event) if self.log.exists() else 0


@contextmanager
def running(bridge: BridgeProcess) -> Iterator[BridgeProcess]:
    """Start it, and leave nothing behind."""
    try:
        bridge.start()
        yield bridge
    finally:
        bridge.stop(signal.SIGKILL)
        sys.stderr.write(bridge.log.read_text())  # shown where a test fails


def make_topics(kafka: LocalKafka, prefix: str, letters_bytes: str = str(4 << 20), **settings: str) -> Names:
    names = Names(prefix)
    for name in (names.verdicts, names.questions, names.downlink):
        kafka.make_topic(name, partitions=2, **settings)
    kafka.make_topic(names.dead_letters, max_message_bytes=letters_bytes)
    return names


def carrier(broker: Mosquitto, gateway: str = "gw", **changed: object) -> UplinkCarrier:
    uplink = {"host": "127.0.0.1", "port": broker.port, "client_id": f"{gateway}-uplink", "stall_s": 3.0}
    return UplinkCarrier(Upward(**(uplink | {"root": "headwater", "gateway": gateway} | changed)))


def verdicts(first: int, stop: int, gateway: str = "gw", **changed: object) -> list[bytes]:
    usual = {"gateway": gateway, "received_at_ms": _NOW_MS}
    return [encode(verdict(id=full_id(gateway, str(at)), **{**usual, **changed})) for at in range(first, stop)]


def delivered(carrier: UplinkCarrier, payloads: Sequence[bytes], within_s: float = 90.0) -> None:
    """Deliver as the courier does: again, where the far end is away."""
    deadline = monotonic() + within_s
    while True:
        try:
            assert list(carrier.deliver(payloads)) == []
        except UnavailableError:
            if monotonic() > deadline:
                raise
            sleep(0.1)
        else:
            return


def produce(kafka: LocalKafka, topic: str, lines: Sequence[bytes]) -> None:
    producer = KafkaProducer(Cluster(brokers=kafka.brokers), stall_s=60.0)
    assert producer.deliver([Outgoing(topic, b"any", line) for line in lines]) == []
    producer.close()


def ids_in(kafka: LocalKafka, topic: str) -> list[tuple[str, int]]:
    """Read id and revision of every verdict in a topic, repeats included."""
    found = [decode_verdict(record.value) for record in read_all(kafka, topic)]
    return [(each.id, each.revision) for each in found]


class GatewaysDisk:
    """What a gateway has on its disk of the centre's answers; the fetcher may be ended and started at will."""

    def __init__(
        self, directory: Path, broker: Mosquitto, gateway: str = "gw", tls: ssl.SSLContext | None = None
    ) -> None:
        directory.mkdir(exist_ok=True)
        self.name = gateway
        self._path = directory / f"{gateway}.sqlite3"
        self._answers = Answers(
            host="127.0.0.1",
            port=broker.port,
            client_id=f"{gateway}-answers",
            tls=tls,
            stall_s=3.0,
            name="answers",
            root="headwater",
            gateway=gateway,
        )

    @contextmanager
    def fetching(self) -> Iterator[None]:
        spool = Spool(self._path, 1 << 30)
        commit = GroupCommit(spool)
        fetcher = AnswersFetcher(self._answers, commit, spool.mark("answers"))
        commit.start()
        fetcher.start()
        try:
            yield
        finally:
            fetcher.stop()
            commit.close()
            fetcher.close()

    def lines(self) -> list[bytes]:
        reader = SpoolReader(self._path)
        try:
            return [record for row in reader.read(0, 100_000) for record in row.arrival.records]
        finally:
            reader.close()
