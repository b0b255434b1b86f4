"""The way to the centre and back: a real broker, a real Kafka, the bridge as a process, and all that befalls them."""

import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from central.local_kafka import LocalKafka
from central.topics import Names
from dataflows.connectors.kafka import Cluster
from dataflows.connectors.kafka_publisher import KafkaProducer, Outgoing
from models.contracts.verdict import CENTRAL, PERSON
from tests.real.bridge import BridgeProcess, GatewaysDisk, carrier, make_topics, running, verdicts
from tests.real.intake import wait_until
from tests.real.kafka import read_all
from tests.real.mosquitto import Mosquitto

pytestmark = pytest.mark.server("mosquitto")


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    broker = Mosquitto(tmp_path / "broker")
    broker.start()
    yield broker
    broker.stop(signal.SIGKILL)


@pytest.fixture
def names(kafka: LocalKafka, topic: str) -> Names:
    return make_topics(kafka, topic[:60])


@pytest.fixture
def bridge(tmp_path: Path, broker: Mosquitto, kafka: LocalKafka, names: Names) -> Iterator[BridgeProcess]:
    with running(BridgeProcess(tmp_path, broker, kafka, names)) as bridge:
        yield bridge


def test_what_is_confirmed_to_a_gateway_is_in_kafka_byte_for_byte(
    broker: Mosquitto, kafka: LocalKafka, names: Names, bridge: BridgeProcess
) -> None:
    sent = verdicts(0, 2500)
    to_centre = carrier(broker)

    assert list(to_centre.deliver(sent)) == []

    found = read_all(kafka, names.verdicts)
    assert sorted(record.value for record in found) == sorted(sent)
    assert {record.key for record in found} == {f"gw.{at}".encode() for at in range(2500)}
    assert read_all(kafka, names.questions) == []
    assert list(to_centre.deliver([])) == []
    to_centre.close()
    assert bridge.stop() == 0


def produce(kafka: LocalKafka, topic: str, lines: Sequence[bytes]) -> None:
    producer = KafkaProducer(Cluster(brokers=kafka.brokers), stall_s=60.0)
    assert producer.deliver([Outgoing(topic, b"any", line) for line in lines]) == []
    producer.close()


def test_a_gateway_gets_what_the_centre_and_people_say_of_its_events_and_nothing_else(
    broker: Mosquitto, kafka: LocalKafka, names: Names, bridge: BridgeProcess, tmp_path: Path
) -> None:
    its_own = verdicts(0, 5)
    answers = [*verdicts(0, 3, revision=CENTRAL), *verdicts(1, 2, revision=PERSON)]
    of_others = verdicts(0, 3, "other", revision=CENTRAL)
    disk = GatewaysDisk(tmp_path, broker)

    with disk.fetching():
        produce(kafka, names.verdicts, [*its_own, *answers, *of_others])
        wait_until(lambda: len(disk.lines()) >= 4, "four answers")
        produce(kafka, names.verdicts, verdicts(3, 4, revision=CENTRAL))
        wait_until(lambda: len(disk.lines()) >= 5, "one more")

    assert sorted(disk.lines()) == sorted([*answers, *verdicts(3, 4, revision=CENTRAL)])
    assert bridge.stop() == 0
