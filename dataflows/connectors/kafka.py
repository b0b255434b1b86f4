"""How a Kafka cluster is reached: settings for librdkafka, and what its errors mean to whoever runs us."""

from collections.abc import Mapping
from typing import Any, Literal

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from msgspec import Struct

from models.contracts.errors import UnavailableError

Value = str | int | bool

_WITHIN_S = 5.0

_REMEDIES = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "its access list does not let us",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "its access list does not let us",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "its access list does not let us",
    KafkaError.UNKNOWN_TOPIC_OR_PART: "make the topic",
    KafkaError._UNKNOWN_TOPIC: "make the topic",  # noqa: SLF001 - librdkafka's own errors are called so
    KafkaError._ALL_BROKERS_DOWN: "look at the brokers, the network and our certificate",  # noqa: SLF001
    KafkaError._AUTHENTICATION: "look at user name and password",  # noqa: SLF001
    KafkaError._SSL: "look at the certificates",  # noqa: SLF001
}


class Cluster(Struct, frozen=True, kw_only=True):
    """Where the brokers are, and who we are there."""

    brokers: str  # host:port, several with commas between
    client_id: str = "headwater"
    tls: bool = False
    ca_file: str = ""  # empty: the system's
    certificate_file: str = ""  # ours, for brokers that ask for one
    key_file: str = ""
    mechanism: Literal["", "SCRAM-SHA-256", "SCRAM-SHA-512"] = ""
    username: str = ""
    password: str = ""

    def settings(self, more: Mapping[str, Value]) -> dict[str, Value]:
        """Return librdkafka's settings; its own log says nothing that does not come back as an error, too."""
        protocol = ("SASL_" if self.mechanism else "") + ("SSL" if self.tls else "PLAINTEXT")
        found = {
            "ssl.ca.location": self.ca_file,
            "ssl.certificate.location": self.certificate_file,
            "ssl.key.location": self.key_file,
            "sasl.mechanism": self.mechanism,
            "sasl.username": self.username,
            "sasl.password": self.password,
        }
        return {
            "bootstrap.servers": self.brokers,
            "client.id": self.client_id,
            "security.protocol": protocol,
            "log_level": 0,
            "reconnect.backoff.ms": 100,
            "reconnect.backoff.max.ms": 2000,
            **{name: value for name, value in found.items() if value},
            **more,
        }


def reason(error: KafkaError) -> str:
    """Return what is wrong in words, and what to do about it where that is known."""
    remedy = _REMEDIES.get(error.code(), "")
    return f"{error.str()} ({error.name()})" + (f": {remedy}" if remedy else "")


def require_topic(cluster: Cluster, topic: str) -> None:
    """Ask a broker about a topic.

    Raises:
        UnavailableError: why none lets us in, or that the topic is not there, and what to do.
    """
    where = f"kafka {cluster.brokers}, topic {topic}"
    said: list[str] = []
    settings: Any = {**cluster.settings({}), "error_cb": lambda error: said.append(reason(error))}
    admin = AdminClient(settings)
    try:
        found = admin.list_topics(topic, timeout=_WITHIN_S).topics[topic]
    except KafkaException as error:
        admin.poll(0)  # what went wrong is told there, and here only that it took too long
        raise UnavailableError(f"{where}: {said[-1] if said else reason(error.args[0])}") from error
    if found.error is not None:
        raise UnavailableError(f"{where}: {reason(found.error)}")
