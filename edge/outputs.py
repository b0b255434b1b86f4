"""From the outputs that the configuration names to the sinks of the flow."""

import ssl
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from threading import Event

from dataflows.connectors import cef, rfc5424
from dataflows.connectors.courier import Carrier, CourierSink, Limits
from dataflows.connectors.json_lines import JsonLinesCarrier
from dataflows.connectors.siem import SiemCarrier
from dataflows.observer import Observer
from dataflows.sections import read_password
from dataflows.triage import Outlet
from edge.config import (
    UPLINK,
    Config,
    JsonLines,
    KafkaOutput,
    MqttOutput,
    Output,
    SyslogOutput,
    Terminal,
    client_id,
    dead_letters,
)
from models.contracts.event import DeadLetter
from models.contracts.verdict import CENTRAL, Verdict
from models.contracts.wire import encode, encode_lines

Encode = Callable[[list[Verdict]], Sequence[bytes]]


def backlog_path(config: Config, name: str) -> Path:
    """Where what the output of that name has not delivered lies."""
    return Path(config.gateway.state_dir) / "backlog" / f"{name}.sqlite3"


def dead_letter_sink(config: Config, stop: Event, observer: Observer) -> CourierSink[DeadLetter]:
    """Return the sink for what gets no verdict: always there, so that nothing needs to be dropped."""
    wanted = dead_letters(config)
    return CourierSink(
        wanted.name,
        _json_lines(wanted),
        lambda letters: [encode_lines(letters)],
        backlog_path(config, wanted.name),
        stop=stop,
        limits=Limits(backlog_bytes=wanted.backlog_max_bytes),
        observer=observer,
    )


def outlets(
    config: Config,
    contexts: Mapping[str, ssl.SSLContext],
    stop: Event,
    observer: Observer,
    letters: CourierSink[DeadLetter],
) -> list[Outlet]:
    """Return one outlet per configured output; `contexts` are those of `certificates.load_all`."""
    found = []
    for output in config.outputs:
        carrier, encoder = _way(output, config, contexts.get(f"output {output.name}"))
        sink = CourierSink(
            output.name,
            carrier,
            encoder,
            backlog_path(config, output.name),
            stop=stop,
            limits=Limits(backlog_bytes=output.backlog_max_bytes),
            observer=observer,
            dead_letters=letters,
        )
        # A step's name may be no other step's and have no dot, and an output may be called as the operator likes.
        found.append(Outlet(f"output-{output.name.replace('.', ':')}", sink, output.routes))
    return found


def uplink_sink(
    config: Config,
    contexts: Mapping[str, ssl.SSLContext],
    stop: Event,
    observer: Observer,
    letters: CourierSink[DeadLetter],
) -> CourierSink[Verdict] | None:
    """Return the sink to the centre, where verdicts go up to one."""
    if config.uplink is None or not config.uplink.routes:
        return None
    # Not every gateway speaks MQTT.
    from dataflows.connectors.mqtt_uplink import UplinkCarrier  # noqa: PLC0415
    from edge.uplink import upward  # noqa: PLC0415

    return CourierSink(
        UPLINK,
        partial(UplinkCarrier, upward(config, config.uplink, contexts.get(UPLINK))),
        _ours,
        backlog_path(config, UPLINK),
        stop=stop,
        limits=Limits(backlog_bytes=config.uplink.backlog_max_bytes),
        observer=observer,
        dead_letters=letters,
    )


def _way(output: Output, config: Config, tls: ssl.SSLContext | None) -> tuple[Callable[[], Carrier], Encode]:
    """Return what makes the carrier, in the courier's thread, and what a payload is."""
    gateway = config.gateway.name
    match output:
        case JsonLines():
            return _json_lines(output), lambda verdicts: [encode_lines(verdicts)]
        case SyslogOutput():
            carrier = partial(SiemCarrier, output.host, output.port, tls)
            if output.format == "cef":
                return carrier, partial(_messages, partial(cef.message, style=_cef(output, gateway)))
            style = rfc5424.Rfc5424(gateway=gateway, severities=output.severity_by_label)
            return carrier, partial(_messages, partial(rfc5424.message, style=style))
        case MqttOutput():
            return _mqtt(output, gateway, tls), partial(_messages, encode)
        case KafkaOutput():
            return _kafka(output, gateway), _ours
        case Terminal():
            return _terminal(), partial(_messages, encode)


def _cef(output: SyslogOutput, gateway: str) -> cef.Cef:
    return cef.Cef(gateway=gateway, severities=output.cef_severity_by_label, syslog_severities=output.severity_by_label)


def _messages(write: Callable[[Verdict], bytes], verdicts: list[Verdict]) -> list[bytes]:
    return [write(verdict) for verdict in verdicts]


def _ours(verdicts: list[Verdict]) -> list[bytes]:
    """Return what the centre has not said itself: where that reads what we write, it would hear it again for ever."""
    return [encode(verdict) for verdict in verdicts if verdict.revision < CENTRAL]


def _mqtt(output: MqttOutput, gateway: str, tls: ssl.SSLContext | None) -> Callable[[], Carrier]:
    # Paho costs a few megabytes, which a gateway without MQTT saves.
    from dataflows.connectors.mqtt_publisher import MqttCarrier, Publishing, check_topic  # noqa: PLC0415

    check_topic(f"output {output.name}", output.topic)
    publishing = Publishing(
        host=output.host,
        port=output.port,
        topic=output.topic,
        client_id=client_id(gateway, output),
        tls=tls,
        username=output.username,
        password=read_password(f"output {output.name}", output.password_file),
    )
    return partial(MqttCarrier, publishing)


def _kafka(output: KafkaOutput, gateway: str) -> Callable[[], Carrier]:
    # A gateway without Kafka needs no client of it.
    from dataflows.connectors.kafka_publisher import KafkaCarrier, Publishing, id_of  # noqa: PLC0415
    from edge.kafka import cluster_of  # noqa: PLC0415

    publishing = Publishing(cluster=cluster_of(output, gateway), topic=output.topic, key_of=id_of)
    return partial(KafkaCarrier, publishing)


def _terminal() -> Callable[[], Carrier]:
    # And so does rich.
    from dataflows.connectors.terminal import TerminalCarrier  # noqa: PLC0415

    return TerminalCarrier


def _json_lines(output: JsonLines) -> Callable[[], Carrier]:
    return partial(
        JsonLinesCarrier,
        Path(output.path),
        rotate_bytes=output.rotate_bytes,
        rotate_s=output.rotate_s,
        keep=output.keep,
    )
