"""From an output's configuration to a Kafka cluster. Imported where there is one: not every gateway has a client."""

from dataflows.connectors.kafka import Cluster, require_topic
from dataflows.sections import read_password
from edge.config import KafkaOutput


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
    require_topic(cluster_of(output, gateway), output.topic)
