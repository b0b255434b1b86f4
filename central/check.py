"""Examines a centre before it runs: everything that its configuration names, in words, with what to do."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from time import time

from central import topics
from central.config import Config, read_config
from central.deliveries import index, warehouse
from central.engine import open_engine
from central.lookups import source_of
from central.outlets import search_cluster
from central.queue.store import Store
from central.wiring import bridge_of, cluster_of, queue_url, warehouse_url
from dataflows.connectors.mqtt_connection import Connection, translated
from dataflows.connectors.uplink import DOWNLINK, LINE_BYTES, topic_of
from dataflows.running.findings import Finding, show
from dataflows.running.policy import in_words, policy_in_force
from models.contracts.errors import HeadwaterError

_LONGEST_NAME = "g" * 64  # of a gateway


def report(path: Path, *, create: bool, grow: bool) -> int:
    """Print what was found about the configuration at `path`; return the exit code.

    Args:
        path: the configuration.
        create: make the topics that are not there.
        grow: give topics more partitions, where more are configured.

    Raises:
        ConfigError: `path` itself cannot be used.
    """
    config = read_config(path)
    return show([Finding("config", "ok", f"{path}: centre {config.centre.name}"), *examine(config, create, grow)])


def examine(config: Config, create: bool, grow: bool) -> Iterator[Finding]:  # noqa: FBT001 - as `report` has them
    """Yield what was found, part by part; nothing that is running is disturbed."""
    yield from _engine(config)
    yield from _topics(config, create, grow)
    yield from _asked("mqtt", lambda: _broker(config))
    yield from _asked("queue", lambda: _queue(config))
    yield from _asked("warehouse", lambda: warehouse.examine(warehouse_url(config)))
    if config.deliver.index is not None:
        wanted = config.deliver.index
        yield from _asked("index", lambda: index.examine(search_cluster(wanted)))
    yield from _lookups(config)


def _engine(config: Config) -> Iterator[Finding]:
    try:
        opened = open_engine(config.engine)
    except HeadwaterError as error:
        yield Finding("engine", "problem", str(error))
        return
    release = opened.classifier.release
    opened.classifier.close()
    yield Finding("engine", "ok", f"{release.title}: {', '.join(release.task.label_names)}")
    try:
        policy = policy_in_force(config.policy, config.policy_file, release)
    except HeadwaterError as error:
        yield Finding("policy", "problem", str(error))
    else:
        yield Finding("policy", "ok", in_words(policy))


def _topics(config: Config, create: bool, grow: bool) -> Iterator[Finding]:  # noqa: FBT001 - as above
    kafka = config.kafka
    try:
        cluster = cluster_of(config)
        declared = topics.declared(kafka.prefix, partitions=kafka.partitions, replication=kafka.replication)
        if create:
            yield from (_about(found) for found in topics.create(cluster, declared, grow=grow))
        yield from (_about(found) for found in topics.examine(cluster, declared))
    except HeadwaterError as error:
        yield Finding("kafka", "problem", str(error))


def _asked(part: str, look: Callable[[], Finding]) -> Iterator[Finding]:
    try:
        yield look()
    except HeadwaterError as error:
        yield Finding(part, "problem", str(error))


def _broker(config: Config) -> Finding:
    bridge = bridge_of(config)
    broker = bridge.broker("check")
    with translated(broker, "gateways keep what they have for us"), closing(Connection(broker)) as connection:
        connection.open()
        return about_broker(
            f"{bridge.host}:{bridge.port}", connection.longest(topic_of(bridge.root, _LONGEST_NAME, DOWNLINK.answer))
        )


def about_broker(where: str, longest: int) -> Finding:
    """Return what there is to say of a broker that lets us in, and takes messages up to so many bytes."""
    if longest >= LINE_BYTES:
        return Finding("mqtt", "ok", f"{where}: lets us in")
    return Finding(
        "mqtt",
        "note",
        f"{where}: lets us in, and takes {longest} bytes, wanted {LINE_BYTES}: longer verdicts become dead letters at"
        " gateways, and of the centre's do not reach them; raise its largest packet (`max_packet_size`)",
    )


def _queue(config: Config) -> Finding:
    with closing(Store(queue_url(config))) as store:
        counts = store.counts(int(time() * 1000))
    return Finding("queue", "ok", f"{store.name}: {counts.waiting} wait, {counts.claimed} are claimed")


def _lookups(config: Config) -> Iterator[Finding]:
    for section in config.lookups:
        part = f"lookup {section.name}"
        try:
            source = source_of(section, cluster_of(config))
            with closing(source):
                table = source.read()
        except HeadwaterError as error:
            yield Finding(part, "problem", str(error))
        else:
            yield Finding(part, "ok", "nothing new" if table is None else f"{len(table)} rows")


def _about(found: topics.Finding) -> Finding:
    return Finding(f"topic {found.topic}", found.state, found.words)
