"""From the configuration to what the parts of the centre are told."""

from pathlib import Path

from central.bridge import Bridge
from central.config import Config
from central.topics import Names
from dataflows.connectors.kafka import Cluster
from dataflows.connectors.kafka_publisher import Publishing, id_of
from dataflows.connectors.kafka_source import Consuming
from dataflows.connectors.tls import client_context
from dataflows.sections import read_password


def cluster_of(config: Config) -> Cluster:
    """Return where the brokers are, and who we are there.

    Raises:
        ConfigError: the password cannot be read.
    """
    kafka, tls = config.kafka, config.kafka.tls
    return Cluster(
        brokers=kafka.brokers,
        client_id=config.centre.name,
        tls=tls is not None,
        ca_file=tls.ca if tls else "",
        certificate_file=tls.certificate if tls else "",
        key_file=tls.key if tls else "",
        mechanism=kafka.mechanism,
        username=kafka.username,
        password=read_password("`kafka`", kafka.password_file),
    )


def names_of(config: Config) -> Names:
    """Return what the topics are called."""
    return Names(config.kafka.prefix)


def consuming(
    config: Config, topic: str, *, flow: str, source: str, process: int, processes: int, batch_records: int
) -> Consuming:
    """Return how a flow reads a topic; lag tools see it as the group `<prefix>.<flow>`."""
    kafka = config.kafka
    return Consuming(
        cluster=cluster_of(config),
        topic=topic,
        group=f"{kafka.prefix}.{flow}",
        name=source,
        start=kafka.start,
        gone=kafka.gone,
        slots=kafka.slots,
        process=process,
        processes=processes,
        batch_records=batch_records,
    )


def publishing(config: Config, topic: str) -> Publishing:
    """Return how records with ids go to a topic."""
    return Publishing(cluster=cluster_of(config), topic=topic, key_of=id_of)


def bridge_of(config: Config) -> Bridge:
    """Return where the bridge stands.

    Raises:
        ConfigError: the password or a certificate cannot be used.
    """
    mqtt, tls, where = config.mqtt, config.mqtt.tls, "`mqtt`"
    return Bridge(
        name=mqtt.client_id or f"{config.centre.name}-bridge",
        host=mqtt.host,
        port=mqtt.port,
        root=mqtt.root,
        tls=None if tls is None else client_context(where, tls.ca, tls.certificate, tls.key),
        username=mqtt.username,
        password=read_password(where, mqtt.password_file),
        cluster=cluster_of(config),
        names=names_of(config),
        operations=config.bridge.operations,
    )


def queue_url(config: Config) -> str:
    """Return where the queue is: as configured, else a file in the state directory."""
    return config.deliver.queue.url or f"sqlite:///{Path(config.centre.state_dir).absolute() / 'queue.sqlite3'}"


def warehouse_url(config: Config) -> str:
    """Return where the warehouse is: as configured, else a folder in the state directory."""
    return config.deliver.warehouse.url or str(Path(config.centre.state_dir).absolute() / "warehouse")
