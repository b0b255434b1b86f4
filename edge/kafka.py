"""From an output's configuration to a Kafka cluster, and whether that lets us in. Nobody else imports its client."""

from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from dataflows.connectors.kafka import Cluster, reason
from edge.config import KafkaOutput, read_password
from models.contracts.errors import UnavailableError

_WITHIN_S = 5.0


def cluster_of(output: KafkaOutput, gateway: str) -> Cluster:
    """Return where an output's brokers are, and who we are there.

    Raises:
        ConfigError: the password cannot be read.
    """
    tls = output.tls
    return Cluster(
        brokers=output.brokers,
        client_id=f"{gateway}-{output.name}",
        tls=tls is not None,
        ca_file=tls.ca if tls else "",
        certificate_file=tls.certificate if tls else "",
        key_file=tls.key if tls else "",
        mechanism=output.mechanism,
        username=output.username,
        password=read_password(f"output {output.name}", output.password_file),
    )


def knock_kafka(output: KafkaOutput, gateway: str) -> None:
    """Ask a broker about the topic, and leave.

    Raises:
        UnavailableError: why it would not let us in, or that the topic is not there, and what to do.
    """
    where = f"kafka {output.brokers}, topic {output.topic}"
    said: list[str] = []
    settings: Any = {
        **cluster_of(output, gateway).settings({}),
        "error_cb": lambda error: said.append(reason(error)),
    }
    admin = AdminClient(settings)
    try:
        found = admin.list_topics(output.topic, timeout=_WITHIN_S).topics[output.topic]
    except KafkaException as error:
        admin.poll(0)  # what went wrong is told there, and here only that it took too long
        raise UnavailableError(f"{where}: {said[-1] if said else reason(error.args[0])}") from error
    if found.error is not None:
        raise UnavailableError(f"{where}: {reason(found.error)}")
