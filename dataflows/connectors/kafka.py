"""How a Kafka cluster is reached: settings for librdkafka, and what its errors mean to whoever runs us."""

from collections.abc import Mapping
from typing import Any, Literal

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient
from msgspec import Struct

from models.contracts.errors import UnavailableError

Value = str | int | bool

_WITHIN_S = 5.0

_MAKE_IT = "make the topic; `python -m central check --create` makes the centre's"
_REMEDIES = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "its access list does not let us",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "its access list does not let us",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "its access list does not let us",
    KafkaError.UNKNOWN_TOPIC_OR_PART: _MAKE_IT,
    KafkaError._UNKNOWN_TOPIC: _MAKE_IT,  # noqa: SLF001 - librdkafka's own errors are called so
    KafkaError._TRANSPORT: "look at whether it runs, and at `brokers`",  # noqa: SLF001
    KafkaError._ALL_BROKERS_DOWN: "look at the brokers, the network, our certificate, and whether they want TLS",  # noqa: SLF001
    KafkaError._AUTHENTICATION: "look at user name and password",  # noqa: SLF001
    KafkaError._SSL: "look at the certificates, and whether `ca` is the authority of the brokers'",  # noqa: SLF001
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "its access list does not let us",
    KafkaError._FENCED: "another one took up the name; let it end",  # noqa: SLF001
    KafkaError.NOT_ENOUGH_REPLICAS: "too few of its brokers are there",
    KafkaError.MSG_SIZE_TOO_LARGE: "the topic takes smaller records only (`max.message.bytes`)",
}
# These say something of one message; every other failure, of the brokers or of us.
OF_THE_MESSAGE = frozenset((KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG, KafkaError.INVALID_RECORD))

_ALERT = "SSL alert"  # what a broker says that lets nobody in without a certificate; librdkafka has no code for it
_ALERTED = "it wants a certificate of an authority that it knows; look at ours"
# Of what goes wrong together these are the causes, and all else follows from them.
_CAUSES = frozenset(
    (
        KafkaError._AUTHENTICATION,  # noqa: SLF001
        KafkaError._SSL,  # noqa: SLF001
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    )
)
# These say that nothing came of it; the last one least of all.
_VAGUE = (
    KafkaError._TRANSPORT,  # noqa: SLF001
    KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001
    KafkaError._TIMED_OUT,  # noqa: SLF001
    KafkaError._MSG_TIMED_OUT,  # noqa: SLF001
)


class Cluster(Struct, frozen=True, kw_only=True):
    """Where the brokers are, and who we are there."""

    brokers: str  # host:port, several with commas between
    client_id: str = "headwater"
    tls: bool = False
    ca_file: str = ""  # empty: the system's
    certificate_file: str = ""  # ours, for brokers that ask for one
    key_file: str = ""
    mechanism: Literal["", "SCRAM-SHA-256", "SCRAM-SHA-512"] = ""
    username: str = ""
    password: str = ""

    def settings(self, more: Mapping[str, Value]) -> dict[str, Value]:
        """Return librdkafka's settings; its own log says nothing that does not come back as an error, too."""
        protocol = ("SASL_" if self.mechanism else "") + ("SSL" if self.tls else "PLAINTEXT")
        found = {
            "ssl.ca.location": self.ca_file,
            "ssl.certificate.location": self.certificate_file,
            "ssl.key.location": self.key_file,
            "sasl.mechanism": self.mechanism,
            "sasl.username": self.username,
            "sasl.password": self.password,
        }
        return {
            "bootstrap.servers": self.brokers,
            "client.id": self.client_id,
            "security.protocol": protocol,
            "log_level": 0,
            "reconnect.backoff.ms": 100,
            "reconnect.backoff.max.ms": 2000,
            **{name: value for name, value in found.items() if value},
            **more,
        }


class Complaints:
    """What a client says went wrong beside what it was asked for. Called by the client's own callbacks."""

    def __init__(self) -> None:
        self._latest: dict[int, KafkaError] = {}  # by code

    def __call__(self, error: KafkaError) -> None:
        self._latest[error.code()] = error

    def clear(self) -> None:
        self._latest.clear()

    def cause(self, asked: KafkaError) -> KafkaError:
        """Return why something failed, of which the call itself said `asked`: perhaps only that nothing came."""
        if asked.code() not in _VAGUE:
            return asked
        return min((*self._latest.values(), asked), key=_distance)


def _distance(error: KafkaError) -> int:
    """Return how far from the cause an error is."""
    if error.code() in _CAUSES or _ALERT in error.str():
        return 0
    return 1 + _VAGUE.index(error.code()) if error.code() in _VAGUE else 1


def reason(error: KafkaError) -> str:
    """Return what is wrong in words, and what to do about it where that is known."""
    remedy = _ALERTED if _ALERT in error.str() else _REMEDIES.get(error.code(), "")
    return f"{error.str()} ({error.name()})" + (f": {remedy}" if remedy else "")


def require_topic(cluster: Cluster, topic: str) -> None:
    """Ask a broker about a topic.

    Raises:
        UnavailableError: why none lets us in, or that the topic is not there, and what to do.
    """
    complaints = Complaints()
    settings: Any = {**cluster.settings({}), "error_cb": complaints}
    admin = AdminClient(settings)
    try:
        # Not by `list_topics`, which may make one.
        admin.describe_topics(TopicCollection([topic]), request_timeout=_WITHIN_S)[topic].result()
    except KafkaException as error:
        admin.poll(0)  # what went wrong is told there, and here only that it took too long
        raise UnavailableError(
            f"kafka {cluster.brokers}, topic {topic}: {reason(complaints.cause(error.args[0]))}"
        ) from error
