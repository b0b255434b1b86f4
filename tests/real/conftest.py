"""Real servers that several tests share."""

from collections.abc import Iterator

import pytest

from central.java_server import missing
from central.local_kafka import LocalKafka
from central.local_opensearch import LocalOpenSearch
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


@pytest.fixture(scope="session")
def opensearch_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalOpenSearch]:
    """One node for all tests; it takes seconds to start."""
    if missing():
        absent(missing())
    node = LocalOpenSearch(tmp_path_factory.mktemp("opensearch"))
    try:
        node.start()
        yield node
    finally:
        node.stop()


@pytest.fixture
def opensearch(opensearch_server: LocalOpenSearch) -> Iterator[LocalOpenSearch]:
    """The node; it runs again after a test that ended it."""
    yield opensearch_server
    if not opensearch_server.runs:
        opensearch_server.start()


@pytest.fixture
def topic(request: pytest.FixtureRequest) -> str:
    """A topic's name that no other test has."""
    return "".join(letter if letter.isalnum() else "-" for letter in request.node.name)[:200]
