"""A Java server on loopback, for demo and tests: its jars fetched once by Maven, a direct child, killed at will."""

import fcntl
import hashlib
import shutil
import signal
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep

from models.contracts.errors import UnavailableError

_ROOT = Path(__file__).parent.parent
_FETCHED_WITHIN_S = 600.0
_READY_WITHIN_S = 180.0
_STOPS_WITHIN_S = 30.0
_LOOK_EVERY_S = 0.1

_LOGGING = """
rootLogger.level=info
rootLogger.appenderRef.out.ref=out
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d{HH:mm:ss.SSS} %p %c{1} %m%n
"""


def missing() -> str:
    """Say what of this machine's is missing to run such a server; empty where nothing is."""
    absent = [name for name in ("java", "mvn") if shutil.which(name) is None]
    if not absent:
        return ""
    verb = "is" if len(absent) == 1 else "are"
    return f"{' and '.join(absent)} {verb} not installed; on Debian: apt-get install openjdk-17-jre-headless maven"


def jars(server: str) -> Path:
    """Return the folder with a server's jars; the first time Maven fetches them, which may take minutes.

    `requirements/SERVER` has Maven's file and the digests of all that it must fetch.

    Raises:
        UnavailableError: they cannot be fetched, or are not those that `jars.sha256` names.
    """
    folder = _ROOT / "build" / server
    if folder.is_dir():
        return folder
    if missing():
        raise UnavailableError(f"{server}: {missing()}")
    folder.parent.mkdir(exist_ok=True)
    with (folder.parent / "maven.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several of Maven would write one repository
        if not folder.is_dir():
            _fetch(server, _ROOT / "requirements" / server, folder)
    return folder


def _fetch(server: str, wanted: Path, folder: Path) -> None:
    fetched = folder.with_name(f"{server}-{uuid.uuid4().hex}")
    command = ["mvn", "-q", "-B", "--strict-checksums", "-f", str(wanted / "pom.xml")]
    command += ["dependency:copy-dependencies", f"-DoutputDirectory={fetched}"]
    try:
        subprocess.run(command, check=True, timeout=_FETCHED_WITHIN_S, capture_output=True, text=True)
        _check(fetched, wanted / "jars.sha256")
        fetched.rename(folder)
    except subprocess.CalledProcessError as error:
        raise UnavailableError(f"{server}: Maven cannot fetch it: {error.stdout.strip()[-400:]}") from error
    except subprocess.TimeoutExpired as error:
        raise UnavailableError(f"{server}: Maven did not fetch it within {_FETCHED_WITHIN_S:g} s") from error
    finally:
        shutil.rmtree(fetched, ignore_errors=True)


class JavaServer:
    """One server, with its data and its log in a folder, on ports that it keeps over restarts."""

    def __init__(self, server: str, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._server = server
        self._directory = directory
        self._classpath = f"{jars(server)}/*"
        self._log = directory / f"{server}.log"
        (directory / "log4j2.properties").write_text(_LOGGING)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it, if it runs; with SIGKILL as a crash would."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.send_signal(number)
            process.wait(_STOPS_WITHIN_S)

    def kill(self) -> None:
        self.stop(signal.SIGKILL)

    def hang(self) -> None:
        """Stop its process where it stands, as one whose disk hangs: connections are taken and nothing is said."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on from there."""
        self._signal(signal.SIGCONT)

    def log_tail(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-20:])

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def _start(self, main: str, *arguments: str, answers: Callable[[], bool]) -> None:
        """Return when the server answers.

        Raises:
            UnavailableError: it ended, or does not answer in time.
        """
        self._process = self._java(main, *arguments)
        deadline = monotonic() + _READY_WITHIN_S
        while not answers():
            if self._process.poll() is not None:
                raise UnavailableError(f"{self._server} ended with {self._process.returncode}:\n{self.log_tail()}")
            if monotonic() > deadline:
                raise UnavailableError(
                    f"{self._server} does not answer within {_READY_WITHIN_S:g} s:\n{self.log_tail()}"
                )
            sleep(_LOOK_EVERY_S)

    def _java(self, main: str, *arguments: str) -> "subprocess.Popen[bytes]":
        command = ["java", "-Xmx256m", "-XX:TieredStopAtLevel=1"]
        command += [f"-Dlog4j2.configurationFile={self._directory}/log4j2.properties", "-cp", self._classpath]
        with self._log.open("ab") as log:
            return subprocess.Popen([*command, main, *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def _check(folder: Path, digests: Path) -> None:
    wanted = {name: digest for digest, name in map(str.split, digests.read_text().splitlines())}
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    if found != wanted:
        other = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
        raise UnavailableError(f"Maven fetched other files than {digests} names: {', '.join(other)}")
