"""A whole centre on loopback, with gateways: Kafka, a broker, the bridge, the flows. For the demo and the long tests.

Gateways follow a file each. Everything is a direct child, killed and started again at will.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from http import HTTPStatus
from pathlib import Path
from typing import Protocol

from central import topics
from central.config import Config, read_config
from central.local_kafka import LocalKafka
from central.wiring import cluster_of
from dataflows.running.child import FlowChild, free_port
from dataflows.running.harvest import Harvest
from dataflows.running.local_mosquitto import LocalMosquitto

_CHECKOUT = Path(__file__).parent.parent
_STARTS_WITHIN_S = 240.0
_STOPS_WITHIN_S = 15.0

_CENTRE = """
[centre]
name = "centre"
state_dir = "{directory}/centre"

[kafka]
brokers = "{brokers}"
slots = 2

[mqtt]
port = {mqtt}

[engine]
kind = "release"
release = "{release}"

[triage]
operations = {{ port = {triage} }}
[bridge]
operations = {{ port = 0 }}

[deliver]
operations = {{ port = {deliver} }}

[deliver.warehouse]
gather_s = 1.0

{more}
"""

_GATEWAY = """
[gateway]
name = "{name}"
state_dir = "{directory}/{name}"

[model]
release = "{release}"

[policy]
number = 100
doubtful = "escalated"

[operations]
port = {operations}

[[sources]]
kind = "file"
name = "log"
path = "{log}"

[[outputs]]
kind = "json-lines"
name = "verdicts"
path = "{output}"
rotate_bytes = 1073741824  # one file, whatever comes

[uplink]
port = {mqtt}
"""


class Victim(Protocol):
    """What can be killed and started again."""

    def start(self) -> None: ...

    def kill(self) -> None:
        """End it as a power cut would: no handler runs."""


class LocalGateway:
    """A gateway that follows a file and asks the centre."""

    def __init__(self, directory: Path, name: str, release: str, mqtt: int) -> None:
        self.name = name
        self.log = directory / f"{name}.log"
        self.log.touch()
        output = directory / f"{name}.jsonl"
        config = directory / f"{name}.toml"
        operations = free_port()
        config.write_text(
            _GATEWAY.format(
                name=name,
                directory=directory,
                release=release,
                operations=operations,
                log=self.log,
                output=output,
                mqtt=mqtt,
            )
        )
        self.process = FlowChild(
            "edge.gateway",
            config,
            operations,
            log=directory / f"{name}.gateway.log",
            environment={"HEADWATER_CONFIG": str(config)},
        )
        self.harvest = Harvest(output)

    def feed(self, lines: Sequence[str]) -> None:
        """Append lines to the file that it follows."""
        with self.log.open("a", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)


class LocalBridge:
    """`python -m central bridge` as a child."""

    def __init__(self, config: Path) -> None:
        self.log = config.with_name("bridge.log")
        self._command = [sys.executable, "-m", "central", "bridge", "--config", str(config)]
        self._environment = {**os.environ, "PYTHONPATH": str(_CHECKOUT)}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self.log.parent,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int | None:
        """End it, if it runs; return its exit code."""
        process, self._process = self._process, None
        if process is None:
            return None
        process.send_signal(number)
        return process.wait(_STOPS_WITHIN_S)

    def kill(self) -> None:
        self.stop(signal.SIGKILL)


class LocalCentre:
    """Everything; `opened` ends it, last things first."""

    def __init__(
        self,
        directory: Path,
        opened: ExitStack,
        *,
        gateways: Sequence[str] = ("gw-1", "gw-2"),
        gateway_release: str = "soc-triage",
        release: str = "soc-triage-large",
        more: str = "",
    ) -> None:
        """Start the servers and make the topics; flows and gateways are started by `start`.

        Raises:
            UnavailableError: a server does not start.
        """
        self.kafka = LocalKafka(directory / "kafka")
        opened.callback(self.kafka.stop)
        self.kafka.start()
        self.mosquitto = LocalMosquitto(directory)
        opened.callback(self.mosquitto.stop)
        self.mosquitto.start()
        path = directory / "central.toml"
        ports = {"triage": free_port(), "deliver": free_port()}
        path.write_text(
            _CENTRE.format(
                directory=directory,
                brokers=self.kafka.brokers,
                mqtt=self.mosquitto.port,
                release=release,
                more=more,
                **ports,
            )
        )
        self.config: Config = read_config(path)
        topics.create(cluster_of(self.config), topics.declared())
        self.bridge = LocalBridge(path)
        opened.callback(self.bridge.stop)
        self.flows = {
            name: FlowChild(f"central.{name}", path, port, environment={"HEADWATER_CENTRAL": str(path)})
            for name, port in ports.items()
        }
        self.gateways = [LocalGateway(directory, name, gateway_release, self.mosquitto.port) for name in gateways]
        for process in self._processes():
            opened.callback(_end, process)

    def start(self, tell: Callable[[str], None] = lambda _: None) -> None:
        """Start bridge, flows and gateways, and return when all of them are ready.

        Raises:
            UnavailableError: one ended, or took too long; with the end of its log.
        """
        tell("starting the bridge, two flows and the gateways …")
        self.bridge.start()
        for process in self._processes():
            process.start()
        for process in self._processes():
            process.wait_until_ready(_STARTS_WITHIN_S)

    def unready(self) -> dict[str, str]:
        """Return by name what keeps a flow or a gateway from working, as it says itself."""
        found = {}
        for process in self._processes():
            status, said = process.get("/readyz")
            if process.ended is not None:
                found[process.log.stem] = f"it ended with {process.ended}; the end of its log:\n{process.log_tail()}"
            elif status != HTTPStatus.OK:
                found[process.log.stem] = said.strip() or f"it does not answer; see {process.log.name}"
        return found

    def is_whole(self) -> bool:
        """Whether every flow and every gateway runs."""
        return all(process.ended is None for process in self._processes())

    def victims(self) -> dict[str, Victim]:
        """Return by name everything that can be killed and started again."""
        found: dict[str, Victim] = {"kafka": self.kafka, "mosquitto": self.mosquitto, "bridge": self.bridge}
        return found | self.flows | {gateway.name: gateway.process for gateway in self.gateways}

    def _processes(self) -> list[FlowChild]:
        return [*self.flows.values(), *(gateway.process for gateway in self.gateways)]


def _end(process: FlowChild) -> None:
    if process.started and process.ended is None:
        process.kill()
