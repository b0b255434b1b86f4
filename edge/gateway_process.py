"""A real gateway as a child process, for the demo, the fault tests and the benches."""

from collections.abc import Mapping
from pathlib import Path

from dataflows.running.child import FlowChild


class GatewayProcess(FlowChild):
    """`python -m bytewax.run edge.gateway` with one configuration."""

    def __init__(self, config: Path, operations_port: int, *, environment: Mapping[str, str] | None = None) -> None:
        named = {"HEADWATER_CONFIG": str(config), **(environment or {})}
        super().__init__("edge.gateway", config, operations_port, environment=named)
