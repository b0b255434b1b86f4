"""A broker that asks who one is: who may comes in, and who may not learns why, and keeps what is to be published."""

from collections.abc import Iterator
from pathlib import Path
from threading import Event
from time import monotonic, sleep

import msgspec
import pytest
import trustme
from confluent_kafka.admin import AclOperation, ResourceType

from central.java_server import missing
from central.topics import Topic, examine
from dataflows.backoff import Backoff
from dataflows.connectors.courier import CourierSink, Limits
from dataflows.connectors.kafka import Cluster, require_topic
from dataflows.connectors.kafka_publisher import KafkaCarrier, Publishing, id_of
from dataflows.connectors.kafka_reader import read_whole
from dataflows.connectors.kafka_source import Consuming, KafkaSource
from models.contracts.errors import UnavailableError
from tests.conftest import FAULTS_S, absent
from tests.real.kafka_guard import PASSWORD, Gate

pytestmark = pytest.mark.timeout(FAULTS_S)

AT_ONCE_S = 15.0  # and not what the courier waits for a broker that says nothing
PAYLOAD = msgspec.json.encode({"id": "event-1"})


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    if missing():
        absent(missing())
    gate = Gate(tmp_path_factory.mktemp("gate"))
    try:
        gate.kafka.start()
        yield gate
    finally:
        gate.kafka.stop()


def publish(cluster: Cluster, topic: str) -> None:
    carrier = KafkaCarrier(Publishing(cluster=cluster, topic=topic, key_of=id_of, stall_s=60.0))
    try:
        assert list(carrier.deliver([PAYLOAD])) == []
    finally:
        carrier.close()


def refusal(cluster: Cluster, topic: str) -> tuple[str, str]:
    """Return what is said to who asks and to who publishes; both learn of it at once."""
    said = []
    for attempt in (require_topic, publish):
        began = monotonic()
        with pytest.raises(UnavailableError) as refused:
            attempt(cluster, topic)
        assert monotonic() - began < AT_ONCE_S
        said.append(str(refused.value))
    return said[0], said[1]


def written(gate: Gate, topic: str) -> list[bytes | None]:
    return [record.value for record in read_whole(gate.by_certificate(gate.server), topic)]


def test_who_shows_a_certificate_publishes_where_the_access_list_lets_him(gate: Gate, topic: str) -> None:
    gate.kafka.make_topic(topic)
    gate.permit("gw-1", ResourceType.TOPIC, topic, AclOperation.WRITE)
    publish(gate.by_certificate(gate.certificate("gw-1")), topic)

    assert written(gate, topic) == [PAYLOAD]


@pytest.mark.parametrize("shown", ["nothing", "another authority's"])
def test_who_shows_no_certificate_that_the_broker_knows_is_refused_and_told_so(
    gate: Gate, topic: str, shown: str
) -> None:
    gate.kafka.make_topic(topic)
    path = None if shown == "nothing" else gate.certificate("gw-1", trustme.CA())

    for said in refusal(gate.by_certificate(path), topic):
        assert "it wants a certificate of an authority that it knows; look at ours" in said


def test_a_broker_whose_authority_we_do_not_know_gets_nothing(gate: Gate, topic: str, tmp_path: Path) -> None:
    gate.kafka.make_topic(topic)
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "another.pem"))
    known = gate.by_certificate(gate.certificate("gw-1"))

    for said in refusal(msgspec.structs.replace(known, ca_file=str(tmp_path / "another.pem")), topic):
        assert "whether `ca` is the authority of the brokers'" in said


def test_who_says_the_password_reads_and_publishes_and_needs_no_group_for_that(gate: Gate, topic: str) -> None:
    gate.kafka.make_topic(topic)
    gate.permit("centre", ResourceType.TOPIC, topic, AclOperation.WRITE, AclOperation.READ)
    cluster = gate.by_password("centre", PASSWORD)
    publish(cluster, topic)

    assert [record.value for record in read_whole(cluster, topic)] == [PAYLOAD]
    consuming = Consuming(cluster=cluster, topic=topic, group="not-ours", name="events")
    slot = KafkaSource(consuming, Event(), drain=True).build_part("records", "slot-0-of-1", None)
    read: list[bytes] = []
    try:
        while not read:
            read += [record for batch in slot.next_batch() for record in batch.records]
    finally:
        slot.close()
    assert read == [PAYLOAD]


@pytest.mark.parametrize("username", ["centre", "nobody"])
def test_a_wrong_password_is_told_to_be_one(gate: Gate, topic: str, username: str) -> None:
    gate.kafka.make_topic(topic)

    for said in refusal(gate.by_password(username, "hunter2"), topic):
        assert "invalid credentials" in said
        assert "look at user name and password" in said
        assert "hunter2" not in said


def test_what_the_access_list_does_not_let_us_publish_waits_until_it_does(
    gate: Gate, topic: str, tmp_path: Path
) -> None:
    gate.kafka.make_topic(topic)
    cluster = gate.by_certificate(gate.certificate("gw-2"))
    for said in refusal(cluster, topic):
        assert "TOPIC_AUTHORIZATION_FAILED" in said
        assert "its access list does not let us" in said

    sink: CourierSink[bytes] = CourierSink(
        "verdicts",
        lambda: KafkaCarrier(Publishing(cluster=cluster, topic=topic, key_of=id_of)),
        list,
        tmp_path / "backlog.sqlite3",
        stop=Event(),
        limits=Limits(backoff=Backoff(first_s=0.05, most_s=0.5)),
    )
    payloads = [msgspec.json.encode({"id": f"event-{number}"}) for number in range(100)]
    sink.deposit(payloads)
    assert written(gate, topic) == []
    gate.permit("gw-2", ResourceType.TOPIC, topic, AclOperation.WRITE)
    deadline = monotonic() + FAULTS_S / 4
    while len(found := written(gate, topic)) < 100 and monotonic() < deadline:
        sleep(0.2)
    sink.close()
    assert found == payloads


def test_a_check_says_what_of_a_topic_it_is_not_let_see(gate: Gate, topic: str) -> None:
    gate.kafka.make_topic(topic)
    cluster = gate.by_certificate(gate.certificate("gw-3"))
    wanted = Topic(name=topic, holds="anything", key="none", partitions=1)

    (unseen,) = examine(cluster, [wanted])
    assert (unseen.state, "its access list does not let us" in unseen.words) == ("problem", True)
    gate.permit("gw-3", ResourceType.TOPIC, topic, AclOperation.WRITE)
    (bare,) = examine(cluster, [wanted])
    assert (bare.state, bare.words.startswith("its settings are not to be seen")) == ("note", True)
    (whole,) = examine(gate.by_certificate(gate.server), [wanted])
    assert whole.state == "ok"
