"""A real Kafka broker on loopback, for demo and tests: fetched once by Maven, a direct child, killed at will."""

import base64
import hashlib
import shutil
import signal
import socket
import subprocess
import uuid
from pathlib import Path
from time import monotonic, sleep

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from models.contracts.errors import UnavailableError

_ROOT = Path(__file__).parent.parent
_WANTED = _ROOT / "requirements" / "kafka"
_JARS = _ROOT / "build" / "kafka"
_FETCHED_WITHIN_S = 600.0
_READY_WITHIN_S = 120.0
_STOPS_WITHIN_S = 30.0
_LOOK_EVERY_S = 0.1

# Sessions as short as the broker lets them be, or a killed one could not come back for nine seconds.
_PROPERTIES = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={data}
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=1500
broker.heartbeat.interval.ms=300
auto.create.topics.enable=false
log.retention.check.interval.ms=500
log.segment.delete.delay.ms=0
{more}
"""
_LOGGING = """
rootLogger.level=info
rootLogger.appenderRef.out.ref=out
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d{HH:mm:ss.SSS} %p %c{1} %m%n
"""


def missing() -> str:
    """Say what of this machine's is missing to run a broker; empty where nothing is."""
    absent = [name for name in ("java", "mvn") if shutil.which(name) is None]
    if not absent:
        return ""
    return f"Kafka needs {' and '.join(absent)}; on Debian: apt-get install openjdk-17-jre-headless maven"


def jars() -> Path:
    """Return the folder with the broker's jars; the first time Maven fetches them, which may take minutes.

    Raises:
        UnavailableError: they cannot be fetched, or are not those that `requirements/kafka/jars.sha256` names.
    """
    if not _JARS.is_dir():
        if missing():
            raise UnavailableError(missing())
        fetched = _JARS.with_name(f"kafka-{uuid.uuid4().hex}")
        command = ["mvn", "-q", "-B", "--strict-checksums", "-f", str(_WANTED / "pom.xml")]
        command += ["dependency:copy-dependencies", f"-DoutputDirectory={fetched}"]
        try:
            subprocess.run(command, check=True, timeout=_FETCHED_WITHIN_S, capture_output=True, text=True)
            _check(fetched)
            fetched.rename(_JARS)
        except subprocess.CalledProcessError as error:
            raise UnavailableError(f"Maven cannot fetch Kafka: {error.stdout.strip()[-400:]}") from error
        except subprocess.TimeoutExpired as error:
            raise UnavailableError(f"Maven did not fetch Kafka within {_FETCHED_WITHIN_S:g} s") from error
        except OSError:
            if not _JARS.is_dir():  # somebody else was first, perhaps
                raise
        finally:
            shutil.rmtree(fetched, ignore_errors=True)
    return _JARS


class LocalKafka:
    """One broker, with its data in a folder; what was acknowledged survives SIGTERM and SIGKILL."""

    def __init__(self, directory: Path, more: str = "") -> None:
        """Make the folder and format its storage; `more` are properties of the broker."""
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._classpath = f"{jars()}/*"
        self.port, controller = _free_port(), _free_port()
        self._properties = directory / "server.properties"
        self._properties.write_text(
            _PROPERTIES.format(port=self.port, controller=controller, data=directory / "data", more=more)
        )
        (directory / "log4j2.properties").write_text(_LOGGING)
        identity = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        self._java("kafka.tools.StorageTool", "format", "-t", f"h{identity[1:]}", "-c", str(self._properties)).wait()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def brokers(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Return when the broker answers.

        Raises:
            UnavailableError: it ended, or does not answer in time.
        """
        self._process = self._java("kafka.Kafka", str(self._properties))
        deadline = monotonic() + _READY_WITHIN_S
        admin = self.admin()
        while True:
            if self._process.poll() is not None:
                raise UnavailableError(f"Kafka ended with {self._process.returncode}:\n{self.log_tail()}")
            try:
                if admin.list_topics(timeout=1).brokers:
                    return
            except KafkaException:
                pass
            if monotonic() > deadline:
                raise UnavailableError(f"Kafka does not answer within {_READY_WITHIN_S:g} s:\n{self.log_tail()}")
            sleep(_LOOK_EVERY_S)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it, if it runs; with SIGKILL as a crash would."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.send_signal(number)
            process.wait(_STOPS_WITHIN_S)

    def admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.brokers, "log_level": 0})

    def make_topic(self, name: str, partitions: int = 1, **settings: str) -> None:
        """Make a topic; its settings are Kafka's, with `_` for `.`."""
        config = {key.replace("_", "."): value for key, value in settings.items()}
        admin = self.admin()  # which has to live until it is told what became of this
        admin.create_topics([NewTopic(name, partitions, 1, config=config)])[name].result(_READY_WITHIN_S)

    def log_tail(self) -> str:
        lines = (self._directory / "kafka.log").read_text(errors="replace").splitlines()
        return "\n".join(lines[-20:])

    def _java(self, main: str, *arguments: str) -> "subprocess.Popen[bytes]":
        command = ["java", "-Xmx256m", "-XX:TieredStopAtLevel=1"]
        command += [f"-Dlog4j2.configurationFile={self._directory}/log4j2.properties", "-cp", self._classpath]
        with (self._directory / "kafka.log").open("ab") as log:
            return subprocess.Popen([*command, main, *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def _check(folder: Path) -> None:
    lines = (_WANTED / "jars.sha256").read_text().splitlines()
    wanted = {name: digest for digest, name in map(str.split, lines)}
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    if found != wanted:
        other = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
        raise UnavailableError(f"Maven fetched other files than {_WANTED / 'jars.sha256'} names: {', '.join(other)}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
