"""`python -m central servers`: a Kafka and a broker for gateways on loopback, to try a centre out without either."""

import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from tempfile import TemporaryDirectory
from time import sleep

from central import java_server
from central.local_kafka import LocalKafka
from dataflows.running.local_mosquitto import LocalMosquitto, program
from models.contracts.errors import UnavailableError

_STOPS = {signal.SIGTERM, signal.SIGINT}
_LOOK_EVERY_S = 0.5


def run(kafka_port: int, mqtt_port: int, tell: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT, or until one of them ends; what they hold is gone then.

    Raises:
        UnavailableError: a program is not installed, a port is not free, a server does not answer, or one has ended.
    """
    if java_server.missing():
        raise UnavailableError(java_server.missing())
    if not program():
        raise UnavailableError("mosquitto is not installed; on Debian: apt-get install mosquitto")
    _require_free(kafka_port, "--kafka-port")
    _require_free(mqtt_port, "--mqtt-port")
    with ExitStack() as opened:
        directory = Path(opened.enter_context(TemporaryDirectory(prefix="headwater-servers-")))
        broker = LocalMosquitto(directory, mqtt_port)
        opened.callback(broker.stop)
        broker.start()
        tell("starting Kafka; the first time Maven fetches it …")
        kafka = LocalKafka(directory / "kafka", port=kafka_port)
        opened.callback(kafka.stop)
        kafka.start()
        tell(f"Kafka on {kafka.brokers}, MQTT on 127.0.0.1:{broker.port}; Ctrl-C ends both, and forgets what they hold")
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
        while not signal.sigpending() & _STOPS:  # `sigwait` would not see that a server has ended
            for name, server in (("Kafka", kafka), ("mosquitto", broker)):
                if not server.runs:
                    raise UnavailableError(f"{name} has ended; start both anew")
            sleep(_LOOK_EVERY_S)


def _require_free(port: int, option: str) -> None:
    # Somebody else's server there would answer as ours should.
    with closing(socket.socket()) as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            door.bind(("127.0.0.1", port))
        except OSError as error:
            raise UnavailableError(f"port {port}: {error.strerror}; give another by `{option}`") from error
