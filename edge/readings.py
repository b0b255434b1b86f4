"""How the records of each source are read, from the configuration to the flow's first step."""

from dataflows.operators.decode import Reading
from edge.config import ANSWERS, Config, Mqtt


def readings(config: Config) -> dict[str, Reading]:
    """Return one reading per source, by its name."""
    gateway = config.gateway.name
    answers = {} if config.uplink is None else {ANSWERS: Reading(kind="answers", gateway=gateway)}
    return answers | {
        source.name: Reading(
            gateway=gateway, max_bytes=source.max_event_bytes, text_path=source.text_path, id_path=source.id_path
        )
        if isinstance(source, Mqtt)
        else Reading(gateway=gateway, max_bytes=source.max_event_bytes)
        for source in config.sources
    }
