"""A real Kafka broker on loopback, for demo and tests: fetched once by Maven, a direct child, killed at will."""

import base64
import uuid
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from central.java_server import JavaServer, free_port

_MADE_WITHIN_S = 120.0

# Sessions as short as the broker lets them be, or a killed one could not come back for nine seconds.
_PROPERTIES = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={data}
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=1500
broker.heartbeat.interval.ms=300
auto.create.topics.enable=false
log.retention.check.interval.ms=500
log.segment.delete.delay.ms=0
{more}
"""


class LocalKafka(JavaServer):
    """One broker, with its data in a folder; what was acknowledged survives SIGTERM and SIGKILL."""

    def __init__(self, directory: Path, more: str = "") -> None:
        """Make the folder and format its storage; `more` are properties of the broker.

        Raises:
            UnavailableError: its jars cannot be had.
        """
        super().__init__("kafka", directory)
        self.port, controller = free_port(), free_port()
        self._properties = directory / "server.properties"
        self._properties.write_text(
            _PROPERTIES.format(port=self.port, controller=controller, data=directory / "data", more=more)
        )
        identity = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        self._java("kafka.tools.StorageTool", "format", "-t", f"h{identity[1:]}", "-c", str(self._properties)).wait()

    @property
    def brokers(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Return when the broker answers.

        Raises:
            UnavailableError: it ended, or does not answer in time.
        """
        admin = self.admin()
        self._start("kafka.Kafka", str(self._properties), answers=lambda: _answers(admin))

    def admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.brokers, "log_level": 0})

    def make_topic(self, name: str, partitions: int = 1, **settings: str) -> None:
        """Make a topic; its settings are Kafka's, with `_` for `.`."""
        config = {key.replace("_", "."): value for key, value in settings.items()}
        admin = self.admin()  # which has to live until it is told what became of this
        admin.create_topics([NewTopic(name, partitions, 1, config=config)])[name].result(_MADE_WITHIN_S)


def _answers(admin: AdminClient) -> bool:
    try:
        return bool(admin.list_topics(timeout=1).brokers)
    except KafkaException:
        return False
