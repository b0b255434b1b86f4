"""Real servers that several tests share."""

from collections.abc import Iterator

import pytest

from central.local_kafka import LocalKafka, missing
from tests.conftest import absent


@pytest.fixture(scope="session")
def kafka_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    """One broker for all tests; it takes seconds to start."""
    if missing():
        absent(missing())
    broker = LocalKafka(tmp_path_factory.mktemp("kafka"))
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
def kafka(kafka_server: LocalKafka) -> Iterator[LocalKafka]:
    """The broker; it runs again after a test that ended it."""
    yield kafka_server
    if not kafka_server.runs:
        kafka_server.start()


@pytest.fixture
def topic(request: pytest.FixtureRequest) -> str:
    """A topic's name that no other test has."""
    return "".join(letter if letter.isalnum() else "-" for letter in request.node.name)[:200]
