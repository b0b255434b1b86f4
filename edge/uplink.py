"""From `[uplink]` to the centre and back. Imported where there is one: paho costs a few megabytes."""

import secrets
import ssl
from typing import Any

from msgspec.structs import replace

from dataflows.connectors.mqtt_answers import Answers
from dataflows.connectors.mqtt_uplink import UplinkCarrier, Upward
from dataflows.sections import read_password
from edge.config import ANSWERS, UPLINK, Config, Uplink

_WITHIN_S = 5.0


def upward(config: Config, uplink: Uplink, tls: ssl.SSLContext | None) -> Upward:
    """Return where verdicts go, and who we are there.

    Raises:
        ConfigError: the password cannot be read.
    """
    return Upward(**_broker(config, uplink, tls, UPLINK))


def downward(config: Config, uplink: Uplink, tls: ssl.SSLContext | None) -> Answers:
    """Return where the centre's verdicts are asked for, and who we are there.

    Raises:
        ConfigError: the password cannot be read.
    """
    return Answers(name=ANSWERS, **_broker(config, uplink, tls, ANSWERS))


def knock_uplink(config: Config, uplink: Uplink, tls: ssl.SSLContext | None) -> None:
    """Send nothing, wait until a bridge confirms it, and leave; by another name, so that a running gateway stays.

    Raises:
        UnavailableError: why nobody answers, and what to do.
    """
    ours = upward(config, uplink, tls)
    carrier = UplinkCarrier(replace(ours, client_id=f"headwater-check-{secrets.token_hex(4)}", stall_s=_WITHIN_S))
    try:
        carrier.deliver([])
    finally:
        carrier.close()


def _broker(config: Config, uplink: Uplink, tls: ssl.SSLContext | None, part: str) -> dict[str, Any]:
    return {
        "host": uplink.host,
        "port": uplink.port,
        "client_id": f"{config.gateway.name}-{part}",
        "tls": tls,
        "username": uplink.username,
        "password": read_password("`uplink`", uplink.password_file),
        "root": uplink.root,
        "gateway": config.gateway.name,
    }
