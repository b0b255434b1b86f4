"""A gateway of its own on free loopback ports, for the demo and the benches: syslog in, JSON lines out."""

import socket
from pathlib import Path

from dataflows.running.child import free_port
from edge.gateway_process import GatewayProcess

TCP, UDP = "syslog-tcp", "syslog-udp"  # the names of its sources

_CONFIG = """
[gateway]
name = "{name}"
state_dir = "{directory}/state"

[model]
release = "{release}"

[operations]
port = {operations}

[[sources]]
kind = "syslog-tcp"
name = "{tcp_name}"
port = {tcp}

[[sources]]
kind = "syslog-udp"
name = "{udp_name}"
port = {udp}

[[outputs]]
kind = "json-lines"
name = "verdicts"
path = "{output}"
rotate_bytes = 1073741824  # one file, whatever is sent

{more}
"""


class LoopbackGateway:
    """Its configuration, state, log and output lie in one directory; `more` is TOML behind the rest."""

    def __init__(self, directory: Path, name: str, release: str, more: str = "") -> None:
        self.tcp, self.udp, operations = free_port(), free_port(socket.SOCK_DGRAM), free_port()
        self.output = directory / "verdicts.jsonl"
        config = directory / "edge.toml"
        config.write_text(
            _CONFIG.format(
                name=name,
                directory=directory,
                release=release,
                operations=operations,
                tcp_name=TCP,
                tcp=self.tcp,
                udp_name=UDP,
                udp=self.udp,
                output=self.output,
                more=more,
            )
        )
        self.process = GatewayProcess(config, operations)
