"""The topics of the centre, declared in one place; what of them a cluster has otherwise, in words; and those made.

Keys, partitions, retention and compaction are all here. What is there already is never changed, but for partitions,
and those only where somebody asks for it.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

from msgspec import Struct

from dataflows.connectors.kafka import Cluster
from dataflows.connectors.kafka_admin import Admin, Found

_DAY_MS = 24 * 3600 * 1000
_FOR_EVER = -1  # Kafka's word for it
_MIB = 1 << 20
_BATCH_OVERHEAD = 12  # Kafka's own default is a MiB and these bytes


class Topic(Struct, frozen=True, kw_only=True):
    """One topic as it should be."""

    name: str
    holds: str
    key: str  # what a record's key is
    partitions: int
    replication: int = 1
    cleanup: Literal["delete", "compact"] = "delete"
    retention_ms: int = 7 * _DAY_MS
    max_message_bytes: int = _MIB + _BATCH_OVERHEAD
    stamped_by: Literal["writer", "broker"] = "writer"
    optional: bool = False  # others make it and write it, or nobody does

    @property
    def min_insync(self) -> int:
        """How many replicas have a record before it is acknowledged: one broker may be away."""
        return max(1, self.replication - 1)

    @property
    def settings(self) -> dict[str, str]:
        """Return what Kafka is told of it."""
        return {
            "cleanup.policy": self.cleanup,
            "retention.ms": str(self.retention_ms),
            "max.message.bytes": str(self.max_message_bytes),
            "min.insync.replicas": str(self.min_insync),
            "message.timestamp.type": "LogAppendTime" if self.stamped_by == "broker" else "CreateTime",
        }


class Names(Struct, frozen=True):
    """What the topics are called under one prefix."""

    prefix: str = "headwater"

    @property
    def events(self) -> str:
        return f"{self.prefix}.events"

    @property
    def questions(self) -> str:
        return f"{self.prefix}.questions"

    @property
    def verdicts(self) -> str:
        return f"{self.prefix}.verdicts"

    @property
    def downlink(self) -> str:
        return f"{self.prefix}.downlink"

    @property
    def dead_letters(self) -> str:
        return f"{self.prefix}.dead-letters"

    @property
    def replayed(self) -> str:
        return f"{self.prefix}.replayed"

    @property
    def incidents(self) -> str:
        return f"{self.prefix}.incidents"

    @property
    def answers(self) -> str:
        return f"{self.prefix}.answers"

    @property
    def assets(self) -> str:
        return f"{self.prefix}.assets"


class Finding(Struct, frozen=True):
    """One thing that was found of a topic, with what to do about it."""

    topic: str
    state: Literal["ok", "note", "problem"]
    words: str


def declared(prefix: str = "headwater", *, partitions: int = 4, replication: int = 1) -> tuple[Topic, ...]:
    """Return the topics of the centre; `partitions` are those of what comes in a stream."""
    names = Names(prefix)
    return (
        Topic(
            name=names.events,
            holds="text of others, to be judged here first",
            key="whatever the sender chose",
            partitions=partitions,
            replication=replication,
            optional=True,
        ),
        Topic(
            name=names.questions,
            holds="verdicts that gateways doubt, to be judged again",
            key="the event's id",
            partitions=partitions,
            replication=replication,
        ),
        Topic(
            name=names.verdicts,
            holds="all verdicts, of gateways and of the centre",
            key="the event's id, so that all that is said of one event stands in one partition, in order",
            partitions=partitions,
            replication=replication,
            retention_ms=30 * _DAY_MS,
        ),
        Topic(
            name=names.downlink,
            holds="verdicts of the centre and of people on gateways' events, for gateways to fetch",
            key="the gateway",
            partitions=partitions,
            replication=replication,
        ),
        Topic(
            name=names.dead_letters,
            holds="what got no verdict, whole, with the reason",
            key="the event's id",
            partitions=1,  # few, read by people
            replication=replication,
            retention_ms=90 * _DAY_MS,
            # A record in base64 is longer by a third, and says where it came from and what is wrong with it.
            max_message_bytes=4 * _MIB,
            # One clock for these and for what was put back of them tells which came later.
            stamped_by="broker",
        ),
        Topic(
            name=names.replayed,
            holds="which dead letters were put back, and when",
            key="what tells one dead letter from every other",
            partitions=1,
            replication=replication,
            cleanup="compact",
            retention_ms=_FOR_EVER,
            stamped_by="broker",
        ),
        Topic(
            name=names.incidents,
            holds="what several verdicts say together",
            key="the incident's id",
            partitions=partitions,
            replication=replication,
            retention_ms=90 * _DAY_MS,
        ),
        Topic(
            name=names.answers,
            holds="what people say of events",
            key="the event's id: of several answers the last one stands",
            partitions=partitions,
            replication=replication,
            cleanup="compact",
            retention_ms=_FOR_EVER,
        ),
        Topic(
            name=names.assets,
            holds="what is known of hosts and addresses, looked up for events",
            key="the host or the address",
            partitions=1,  # read whole by every process
            replication=replication,
            cleanup="compact",
            retention_ms=_FOR_EVER,
        ),
    )


def compare(topic: Topic, found: Found | None) -> list[Finding]:
    """Say what a cluster has otherwise than declared, and what to do; one finding that all is well, where it is."""
    findings = [Finding(topic.name, state, words) for state, words in _differences(topic, found)]
    if findings:
        return findings
    return [Finding(topic.name, "ok", f"{_in_words(topic)}: {topic.holds}; key: {topic.key}")]


def examine(cluster: Cluster, topics: Sequence[Topic]) -> list[Finding]:
    """Ask a cluster about its topics.

    Raises:
        UnavailableError: no broker answers, or it does not let us look.
    """
    found = Admin(cluster).find([topic.name for topic in topics])
    return [finding for topic in topics for finding in compare(topic, found[topic.name])]


def create(cluster: Cluster, topics: Sequence[Topic], *, grow: bool = False) -> list[Finding]:
    """Make the topics that are not there; with `grow` give those more partitions that have fewer than declared.

    Raises:
        ConfigError: the cluster cannot have such topics.
        UnavailableError: no broker answers, or it does not let us.
    """
    admin = Admin(cluster)
    found = admin.find([topic.name for topic in topics])
    done = []
    for topic in topics:
        there = found[topic.name]
        if there is None:
            if admin.make(topic.name, topic.partitions, topic.replication, topic.settings):
                done.append(Finding(topic.name, "ok", f"made: {_in_words(topic)}"))
        elif grow and _may_grow(topic, there):
            admin.grow(topic.name, topic.partitions)
            done.append(Finding(topic.name, "ok", f"from {there.partitions} partitions to {topic.partitions}"))
    return done


def _may_grow(topic: Topic, found: Found) -> bool:
    # The last word on a key would stand in the old partition, and older words that nothing compacts away in the new.
    return topic.cleanup != "compact" and 0 < found.partitions < topic.partitions


def _differences(topic: Topic, found: Found | None) -> Iterator[tuple[Literal["note", "problem"], str]]:
    if found is None:
        words = f"is not there; `central check --create` makes it: {_in_words(topic)}"
        yield ("note" if topic.optional else "problem"), words
        return
    if found.unseen and not found.partitions:
        yield "problem", f"is there, perhaps: {found.unseen}"
        return
    if found.unseen:
        yield "note", f"its settings are not to be seen: {found.unseen}"
    if found.partitions < topic.partitions:
        yield "note", f"found {_count(found.partitions, 'partition')}, wanted {topic.partitions}; {_growth(topic)}"
    if found.replication < topic.replication:
        replicas = _count(found.replication, "replica")
        remedy = "`kafka-reassign-partitions.sh` gives it more"
        yield (
            "problem",
            f"found {replicas}, wanted {topic.replication}: a broker that dies takes records along; {remedy}",
        )
    for name, wanted in topic.settings.items():
        there = found.settings.get(name)
        harm = None if there is None else _harm(name, there, wanted, found)
        if harm:
            remedy = f"`kafka-configs.sh --alter --topic {topic.name} --add-config {name}={wanted}`"
            yield "problem", f"found {name} = {there}, wanted {wanted}: {harm}; {remedy}"
    size = int(found.settings.get("retention.bytes", _FOR_EVER))
    if size != _FOR_EVER and topic.cleanup == "delete":
        yield "note", f"found retention.bytes = {size}: under load, records are deleted before their time"


def _growth(topic: Topic) -> str:
    if topic.cleanup == "compact":
        return "it stays so, for the last word on a key has to stand behind all earlier ones; a new topic can have more"
    return (
        "`central check --create --grow` gives it more, and from then on what is said of one event may stand in two of "
        "them"
    )


def _harm(name: str, found: str, wanted: str, there: Found) -> str:
    """Say what is bad about a setting that differs; nothing where it does more than is wanted."""
    match name:
        case "cleanup.policy":
            harm = "what is old is deleted" if wanted == "compact" else "all but the last record of a key are deleted"
            return "" if found == wanted else harm
        case "retention.ms":
            kept_longer = int(found) == _FOR_EVER or (int(wanted) != _FOR_EVER and int(found) >= int(wanted))
            return "" if kept_longer or there.settings.get("cleanup.policy") == "compact" else "records go earlier"
        case "message.timestamp.type":
            harm = "a writer's clock says which of them count as put back"
            return "" if wanted in (found, "CreateTime") else harm
        case "max.message.bytes":
            return "" if int(found) >= int(wanted) else "larger records are refused, and become dead letters"
        case _:
            if int(found) > there.replication:
                return f"it has {_count(there.replication, 'replica')}, and so takes nothing at all"
            return "" if int(found) >= int(wanted) else "a record that one broker alone has acknowledged dies with it"


def _in_words(topic: Topic) -> str:
    kept = "the last of each key" if topic.cleanup == "compact" else f"{topic.retention_ms / _DAY_MS:g} days"
    partitions, replicas = _count(topic.partitions, "partition"), _count(topic.replication, "replica")
    return f"{partitions}, {replicas}, keeps {kept}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
