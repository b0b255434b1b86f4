"""Between gateways, which speak MQTT, and the centre's Kafka; it remembers nothing, so any number may run.

Three threads, each with connections of its own. One carries up what gateways send. One picks from all verdicts those
that the centre or a person gave on gateways' events. One hands these out to the gateways that ask for them. A thread
whose Kafka is away leaves the broker as well: then gateways see at once that nobody is there, keep what they have on
their disks, and another bridge, if there is one, has the work.
"""

import signal
import ssl
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from random import Random
from threading import Event, Thread
from time import monotonic

import structlog
from msgspec import Struct

from central.bridge_downlink import Waiting, for_gateways
from central.bridge_uplink import deliver_or_bury, into_kafka
from central.bridge_watch import BridgeWatch
from central.topics import Names
from dataflows.backoff import Backoff
from dataflows.connectors.kafka import Cluster, require_topic
from dataflows.connectors.kafka_consumer import GroupConsumer, OffsetReader
from dataflows.connectors.kafka_publisher import KafkaProducer
from dataflows.connectors.mqtt_connection import Broker
from dataflows.connectors.mqtt_requests import Request, Requests
from dataflows.connectors.uplink import DOWNLINK, UPLINK
from dataflows.running.notify import Watchdog, notify
from dataflows.running.operations import OperationsServer
from dataflows.sections import Operations
from models.contracts.errors import UnavailableError
from models.contracts.event import DeadLetter

_AT_ONCE = 32  # messages of gateways on their way into Kafka: some MiB
_TURN_S = 0.2
_GLANCE_S = 0.01
_TICK_S = 0.25
_STOPS = {signal.SIGTERM, signal.SIGINT}
_STALL_S = 10.0  # without a word of Kafka's
_LOOK_S = 5.0  # how often Kafka is asked whether it is there, while there is nothing for it
_LARGEST_BYTES = 4 << 20  # of a record: a dead letter holds in base64 what may be nearly a MiB
_STOP_WITHIN_S = 3.5
_BACKOFF = Backoff(first_s=0.5, most_s=10.0)
_UP, _PICKS, _DOWN = "uplink", "picks", "downlink"  # the threads

log = structlog.get_logger()


class Bridge(Struct, frozen=True, kw_only=True):
    """Where a bridge stands; its name is its own among all clients of the broker."""

    name: str
    host: str
    port: int
    root: str = "headwater"  # of the topics at the broker
    tls: ssl.SSLContext | None = None
    username: str = ""
    password: str = ""
    cluster: Cluster
    names: Names = Names()
    operations: Operations | None = None  # where it is watched

    def broker(self, part: str) -> Broker:
        """Return the broker as one thread of ours knows it."""
        return Broker(
            host=self.host,
            port=self.port,
            client_id=f"{self.name}-{part}",
            tls=self.tls,
            username=self.username,
            password=self.password,
        )


Work = Callable[[Bridge, Event, BridgeWatch], None]


def run(bridge: Bridge) -> int:
    """Carry until SIGTERM or SIGINT; return 0 then, 1 where a thread died.

    Raises:
        ConfigError: where it is to be watched cannot be bound.
        UnavailableError: it cannot be bound now.
    """
    # Blocked in all threads, and waited for in this one: no handler comes in between.
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
    watch = BridgeWatch(_WORK)
    with _watched(bridge.operations, watch):
        return _run(bridge, watch)


@contextmanager
def _watched(operations: Operations | None, watch: BridgeWatch) -> Iterator[None]:
    if operations is None:
        yield
        return
    server = OperationsServer(operations.host, operations.port, watch.registry, watch.unhealthy, watch.unready)
    with closing(server):
        server.start()
        yield


def _run(bridge: Bridge, watch: BridgeWatch) -> int:
    stop, died = Event(), Event()

    def turn(name: str, work: Work) -> None:
        try:
            _keep_on(name, work, bridge, stop, watch)
        except BaseException as error:  # what is left would carry one way only
            log.exception("thread_died", thread=name, reason=repr(error))
            died.set()

    threads = [Thread(target=turn, args=(name, work), name=name, daemon=True) for name, work in _WORK.items()]
    for thread in threads:
        thread.start()
    watchdog = Watchdog()
    notify("READY=1", f"STATUS={bridge.name} carries")
    # Not sigtimedwait: in CPython it tells of a signal that never came, where SIGCONT wakes it after its time is over.
    while not died.wait(_TICK_S) and not signal.sigpending() & _STOPS:
        if not watch.unhealthy():
            watchdog.feed()
    stop.set()
    log.info("stopping")
    notify("STOPPING=1")
    deadline = monotonic() + _STOP_WITHIN_S
    for thread in threads:
        # One that waits for Kafka longer than that is left: what it has, gateways have too.
        thread.join(max(0.0, deadline - monotonic()))
    log.info("stopped")
    return 1 if died.is_set() else 0


def carry_up(bridge: Bridge, stop: Event, watch: BridgeWatch) -> None:
    """Carry what gateways send into Kafka until told to stop.

    Raises:
        UnavailableError: the broker or Kafka is away; gateways keep what is not confirmed.
    """
    names = bridge.names
    for topic in (names.verdicts, names.questions, names.dead_letters):
        require_topic(bridge.cluster, topic)
    producer = KafkaProducer(bridge.cluster, stall_s=_STALL_S, largest_bytes=_LARGEST_BYTES)
    requests = Requests(bridge.broker("uplink"), bridge.root, UPLINK, at_once=_AT_ONCE)
    with closing(producer), closing(requests):
        requests.open()
        log.info("bridge_carries_up", broker=f"{bridge.host}:{bridge.port}", brokers=bridge.cluster.brokers)
        heard_at = monotonic()
        while not stop.is_set():
            found = requests.take(_TURN_S)
            carried = _carry(requests, found, producer, names, watch)
            watch.turned(_UP, len(found))
            if carried:
                heard_at = monotonic()
            elif monotonic() - heard_at > _LOOK_S:
                producer.look(names.verdicts)  # or gateways that have nothing to send would take us to be well
                heard_at = monotonic()
        _carry(requests, requests.leave(), producer, names, watch)
        requests.settle()


def _carry(requests: Requests, found: list[Request], producer: KafkaProducer, names: Names, watch: BridgeWatch) -> bool:
    """Return whether there was anything for Kafka."""
    is_any = any(request.message.payload for request in found)
    if is_any:
        _tell(into_kafka(found, producer, names), watch)
    for request in found:
        requests.answer(request)
    return is_any


def pick(bridge: Bridge, stop: Event, watch: BridgeWatch) -> None:
    """Pick what gateways are to know from all verdicts, until told to stop.

    Raises:
        UnavailableError: Kafka is away.
    """
    names = bridge.names
    require_topic(bridge.cluster, names.downlink)
    producer = KafkaProducer(bridge.cluster, stall_s=_STALL_S, largest_bytes=_LARGEST_BYTES)
    consumer = GroupConsumer(
        bridge.cluster, names.verdicts, group=f"{names.prefix}.bridge", member=f"{bridge.name}-picks"
    )
    with closing(producer), closing(consumer):
        while not stop.is_set():
            taken = consumer.take(_TURN_S)
            if taken:
                records = for_gateways([record.value for record in taken], names.downlink)
                _tell(deliver_or_bury(records, (), producer, names), watch)
                consumer.commit()
            watch.turned(_PICKS, len(taken))


def hand_out(bridge: Bridge, stop: Event, watch: BridgeWatch) -> None:
    """Answer gateways that ask for verdicts of the centre, until told to stop.

    Raises:
        UnavailableError: the broker or Kafka is away; gateways ask again.
    """
    require_topic(bridge.cluster, bridge.names.downlink)
    waiting = Waiting(monotonic)
    reader = OffsetReader(bridge.cluster, bridge.names.downlink)
    requests = Requests(bridge.broker("downlink"), bridge.root, DOWNLINK)
    with closing(reader), closing(requests):
        requests.open()
        log.info("bridge_hands_out", broker=f"{bridge.host}:{bridge.port}", brokers=bridge.cluster.brokers)
        try:
            while not stop.is_set():
                for request in requests.take(_GLANCE_S if waiting else _TURN_S):
                    waiting.add(request)
                answered = 0
                if waiting:
                    for request, answer in waiting.learn(reader.read(waiting.start(), _TURN_S)):
                        requests.answer(request, answer)
                        answered += 1
                watch.turned(_DOWN, answered)
        finally:
            with suppress(UnavailableError):  # of the broker, to whom nothing can be said then
                _dismiss(waiting, requests)


def _dismiss(waiting: Waiting, requests: Requests) -> None:
    for request in requests.leave():
        waiting.add(request)
    for request, answer in waiting.dismiss():
        requests.answer(request, answer)
    requests.settle()


def _tell(letters: Sequence[DeadLetter], watch: BridgeWatch) -> None:
    for (reason, gateway), count in Counter((letter.reason, letter.gateway) for letter in letters).items():
        log.warning("dead_letters", reason=reason, gateway=gateway, count=count)
        watch.buried(reason, count)


def _keep_on(name: str, work: Work, bridge: Bridge, stop: Event, watch: BridgeWatch) -> None:
    """Do the work again whenever the broker or Kafka was away."""
    chance = Random()  # noqa: S311 - jitter, not a secret
    delays = _BACKOFF.delays(chance)
    while not stop.is_set():
        began = monotonic()
        try:
            work(bridge, stop, watch)
        except UnavailableError as error:
            if monotonic() - began > _BACKOFF.most_s:
                delays = _BACKOFF.delays(chance)  # it had worked
            watch.waits(name, str(error))
            delay_s = next(delays)
            log.warning("bridge_waits", thread=name, reason=str(error), wait_s=round(delay_s, 1))
            stop.wait(delay_s)


_WORK: dict[str, Work] = {_UP: carry_up, _PICKS: pick, _DOWN: hand_out}
