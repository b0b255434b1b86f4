"""How a cluster is reached, and what its errors mean: settings, causes and remedies; what a record carries along."""

import pytest
from confluent_kafka import KafkaError

from dataflows.connectors.kafka import Cluster, Complaints, reason
from dataflows.connectors.kafka_publisher import id_of, reason_of
from models.contracts.event import DeadLetter
from models.contracts.scalars import EventId
from models.contracts.wire import encode

ALERT = "ssl://b:9093/bootstrap: Receive failed: ssl/tls alert bad certificate: SSL alert number 42"


@pytest.mark.parametrize(
    ("cluster", "protocol"),
    [
        (Cluster(brokers="b"), "PLAINTEXT"),
        (Cluster(brokers="b", tls=True), "SSL"),
        (Cluster(brokers="b", mechanism="SCRAM-SHA-512"), "SASL_PLAINTEXT"),
        (Cluster(brokers="b", tls=True, mechanism="SCRAM-SHA-512"), "SASL_SSL"),
    ],
)
def test_the_protocol_follows_from_tls_and_password(cluster: Cluster, protocol: str) -> None:
    assert cluster.settings({})["security.protocol"] == protocol


def test_what_is_not_set_is_not_told_to_the_client() -> None:
    bare = Cluster(brokers="b").settings({"acks": "all"})
    whole = Cluster(brokers="b", tls=True, ca_file="ca", certificate_file="crt", key_file="key").settings({})

    assert bare["acks"] == "all"
    assert not [name for name in bare if name.startswith(("ssl.", "sasl."))]
    assert {name: value for name, value in whole.items() if name.startswith("ssl.")} == {
        "ssl.ca.location": "ca",
        "ssl.certificate.location": "crt",
        "ssl.key.location": "key",
    }


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED), "its access list does not let us"),
        (KafkaError(KafkaError._AUTHENTICATION), "look at user name and password"),
        (KafkaError(KafkaError._TRANSPORT, ALERT), "it wants a certificate of an authority that it knows"),
        (KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART), "make the topic"),
    ],
)
def test_an_error_is_told_with_its_remedy(error: KafkaError, words: str) -> None:
    assert f"({error.name()}): {words}" in reason(error)


def test_an_error_without_a_remedy_is_told_as_it_is() -> None:
    assert reason(KafkaError(KafkaError.UNKNOWN, "odd")) == "odd (UNKNOWN)"


def test_of_what_went_wrong_together_the_cause_is_told() -> None:
    complaints = Complaints()
    nothing_came = KafkaError(KafkaError._MSG_TIMED_OUT)
    assert complaints.cause(nothing_came) == nothing_came
    complaints(KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down"))
    assert complaints.cause(nothing_came).code() == KafkaError._ALL_BROKERS_DOWN
    complaints(KafkaError(KafkaError._TRANSPORT, "Connection refused"))
    assert complaints.cause(nothing_came).str() == "Connection refused"
    complaints(KafkaError(KafkaError._AUTHENTICATION, "invalid credentials"))
    assert complaints.cause(nothing_came).code() == KafkaError._AUTHENTICATION

    said_by_the_call = KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)
    assert complaints.cause(said_by_the_call) == said_by_the_call
    complaints.clear()
    assert complaints.cause(nothing_came) == nothing_came


def test_an_alert_is_the_cause_where_all_that_came_of_it_is_that_brokers_are_down() -> None:
    complaints = Complaints()
    for error in (KafkaError(KafkaError._TRANSPORT, ALERT), KafkaError(KafkaError._ALL_BROKERS_DOWN)):
        complaints(error)

    assert complaints.cause(KafkaError(KafkaError._TRANSPORT)).str() == ALERT


def test_a_dead_letter_shows_its_reason_and_its_source_in_headers() -> None:
    letter = DeadLetter(
        id=EventId("o.1"), source="hosts", received_at_ms=0, reason="not-json", detail="", raw=b"\xff", gateway="gw-1"
    )

    assert reason_of(encode(letter)) == [("reason", b"not-json"), ("source", b"hosts"), ("gateway", b"gw-1")]
    assert id_of(encode(letter)) == b"o.1"
