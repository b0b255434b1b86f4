"""The flow is measured as everybody gets it, and a figure stands for events that were counted in the output."""

from pathlib import Path

import msgspec

from bench.pipeline import config, measured
from edge.config import Config, Gateway, JsonLines, SyslogTcp


def test_what_is_measured_is_the_default_but_for_where_its_events_come_from_and_its_files_lie(tmp_path: Path) -> None:
    gateway = config(tmp_path)

    (source,), (output,) = gateway.sources, gateway.outputs
    assert msgspec.structs.replace(gateway, gateway=Gateway(), sources=(), outputs=()) == Config()
    assert msgspec.structs.replace(gateway.gateway, state_dir=Gateway().state_dir) == Gateway()
    assert isinstance(source, SyslogTcp)
    assert isinstance(output, JsonLines)
    assert source == SyslogTcp(name=source.name, port=0)
    assert output == JsonLines(name=output.name, path=output.path)


def test_every_event_that_went_through_the_door_is_in_the_output() -> None:
    seconds = measured(1500)

    assert seconds["cpu_s"] > 0
    assert seconds["wall_s"] > 0
