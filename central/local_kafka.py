"""A real Kafka broker on loopback, for demo and tests: fetched once by Maven, a direct child, killed at will."""

import base64
import uuid
from collections.abc import Mapping
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from msgspec import Struct
from msgspec.structs import asdict

from central.java_server import JavaServer
from dataflows.running.child import free_port

_MADE_WITHIN_S = 120.0

# Sessions as short as the broker lets them be, or a killed one could not come back for nine seconds.
_PROPERTIES = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
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
{door}
{more}
"""
_OPEN = """
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
"""
_GUARDED = """
listeners=SSL://127.0.0.1:{port},SASL_SSL://127.0.0.1:{password_port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=SSL://127.0.0.1:{port},SASL_SSL://127.0.0.1:{password_port}
inter.broker.listener.name=SSL
listener.security.protocol.map=CONTROLLER:SSL,SSL:SSL,SASL_SSL:SASL_SSL
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
allow.everyone.if.no.acl.found=false
super.users=User:{server_name}
ssl.keystore.type=PEM
ssl.keystore.location={server}
ssl.truststore.type=PEM
ssl.truststore.location={authority}
ssl.client.auth=required
ssl.principal.mapping.rules=RULE:^CN=([^,]+).*$/$1/,DEFAULT
listener.name.sasl_ssl.ssl.client.auth=none
sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=\\
    org.apache.kafka.common.security.scram.ScramLoginModule required;
"""


class Guard(Struct, frozen=True, kw_only=True):
    """Who is let in, and by what: all by TLS, at one port by a certificate, at the other by a password.

    They are called by their certificates' common names. What each may do is said by access lists, of which there are
    none at first, and who has the broker's own certificate may do everything.
    """

    authority: Path  # PEM
    server: Path  # PEM: a key in PKCS #8, and its certificate
    server_name: str  # the certificate's common name
    passwords: Mapping[str, str]


class LocalKafka(JavaServer):
    """One broker, with its data in a folder; what was acknowledged survives SIGTERM and SIGKILL."""

    def __init__(self, directory: Path, more: str = "", guard: Guard | None = None, port: int = 0) -> None:
        """Make the folder and format its storage; `more` are properties of the broker; port 0 is a free one.

        Raises:
            UnavailableError: its jars cannot be had.
        """
        super().__init__("kafka", directory)
        self._guard = guard
        self.port, self._password_port, controller = port or free_port(), free_port(), free_port()
        ports = {"port": self.port, "password_port": self._password_port, "controller": controller}
        door = _OPEN.format(**ports) if guard is None else _GUARDED.format(**ports, **asdict(guard))
        self._properties = directory / "server.properties"
        self._properties.write_text(
            _PROPERTIES.format(controller=controller, data=directory / "data", door=door, more=more)
        )
        identity = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        users = [] if guard is None else guard.passwords.items()
        scram = [f"SCRAM-SHA-512=[name={name},password={password}]" for name, password in users]
        self._java(
            "kafka.tools.StorageTool",
            *("format", "-t", f"h{identity[1:]}", "-c", str(self._properties)),
            *(word for user in scram for word in ("--add-scram", user)),
        ).wait()

    @property
    def brokers(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def password_brokers(self) -> str:
        """Where one with a guard takes passwords."""
        return f"127.0.0.1:{self._password_port}"

    def start(self) -> None:
        """Return when the broker answers.

        Raises:
            UnavailableError: it ended, or does not answer in time.
        """
        admin = self.admin()
        self._start("kafka.Kafka", str(self._properties), answers=lambda: _answers(admin))

    def admin(self) -> AdminClient:
        settings: dict[str, str | int | float | bool] = {"bootstrap.servers": self.brokers, "log_level": 0}
        if self._guard is not None:
            server = str(self._guard.server)
            settings |= {"security.protocol": "SSL", "ssl.ca.location": str(self._guard.authority)}
            settings |= {"ssl.certificate.location": server, "ssl.key.location": server}
        return AdminClient(settings)

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
