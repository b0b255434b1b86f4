"""Examines a centre before it runs: everything that its configuration names, in words, with what to do."""

from collections.abc import Iterator
from pathlib import Path

from central import topics
from central.config import Config, read_config
from central.engine import open_engine
from central.wiring import cluster_of
from dataflows.running.findings import Finding, show
from dataflows.running.policy import policy_in_force
from models.contracts.errors import HeadwaterError


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
        yield Finding("policy", "ok", f"number {policy.number}; what is not accepted goes to {policy.doubtful}")


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


def _about(found: topics.Finding) -> Finding:
    return Finding(f"topic {found.topic}", found.state, found.words)
