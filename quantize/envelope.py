"""The envelopes that an event travels in: bare, RFC 3164, RFC 5424, the JSON of whatever forwarded it."""

import re
from collections.abc import Callable
from random import Random
from typing import Any

from quantize.records import write
from quantize.values import Values

_STAMPED = re.compile(r"^\{ts_bsd\} \{(?:host|fqdn|device)\} ")
_APP = re.compile(r"^([A-Za-z][\w./-]{0,40})(?:\[(\d+)\])?: ")
_TAGS = (
    "app",
    "audit",
    "agent",
    "forwarder",
    "logger",
    "events",
    "fluentd",
    "filebeat",
    "security",
    "system",
    "collector",
)


_FORWARDED = 0.12  # of lines of text


def _of_journald(line: str, values: Values, chance: Random) -> dict[str, Any]:
    return {
        "__REALTIME_TIMESTAMP": f"{values.draw('epoch')}000000",
        "_HOSTNAME": values.draw("host"),
        "PRIORITY": chance.choice("3456"),
        "SYSLOG_IDENTIFIER": chance.choice(_TAGS),
        "_PID": values.draw("pid"),
        "_TRANSPORT": chance.choice(("syslog", "stdout", "journal")),
        "MESSAGE": line,
    }


def _of_docker(line: str, values: Values, chance: Random) -> dict[str, Any]:
    return {"log": line + "\n", "stream": chance.choice(("stdout", "stderr")), "time": values.draw("ts_iso")}


def _of_kubernetes(line: str, values: Values, chance: Random) -> dict[str, Any]:
    app = chance.choice(_TAGS)
    named = {"pod_name": f"{app}-{values.draw('hex8')}", "namespace_name": "default", "container_name": app}
    return {"log": line, "stream": chance.choice(("stdout", "stderr")), "kubernetes": named}


def _of_a_beat(line: str, values: Values, chance: Random) -> dict[str, Any]:
    return {
        "@timestamp": values.draw("ts_iso"),
        "agent": {"type": "filebeat", "version": chance.choice(("7.17.9", "8.11.3", "8.15.0"))},
        "host": {"name": values.draw("host")},
        "log": {"file": {"path": f"/var/log/{chance.choice(_TAGS)}.log"}},
        "message": line,
    }


def _of_gelf(line: str, values: Values, chance: Random) -> dict[str, Any]:
    return {
        "version": "1.1",
        "host": values.draw("host"),
        "short_message": line,
        "timestamp": int(values.draw("epoch")),
        "level": chance.choice((3, 4, 5, 6)),
        "_facility": chance.choice(_TAGS),
    }


def _of_a_cloud(line: str, values: Values, chance: Random) -> dict[str, Any]:
    group = f"/{values.draw('org')}/{chance.choice(_TAGS)}"
    return {"logGroup": group, "logStream": values.draw("host"), "id": values.draw("big"), "message": line}


_FORWARDERS: tuple[Callable[[str, Values, Random], dict[str, Any]], ...] = (
    _of_journald,
    _of_docker,
    _of_kubernetes,
    _of_a_beat,
    _of_gelf,
    _of_a_cloud,
)


def wrap(event: str, template: str, values: Values, chance: Random) -> str:
    """Return `event` as one of the shapes in which such an event reaches a gateway.

    Priority and tag are drawn without regard to the label: they must not give it away.
    """
    if not event.startswith(("{", "<")) and chance.random() < _FORWARDED:
        return write(chance.choice(_FORWARDERS)(event, values, chance), chance)
    stamped = _STAMPED.match(template)
    message = event
    if stamped is not None:
        # `Mmm dd hh:mm:ss host `: what a daemon writes through the system's logger
        message = event[16:].split(" ", 1)[1]
    shape = chance.random()
    if stamped is not None:
        return (
            event
            if shape < 0.45
            else _syslog(message, shape < 0.65, shape < 0.85, values, chance)
            if shape < 0.93
            else message
        )
    if event.startswith("<") or _looks_stamped(template):
        return event if shape < 0.85 else _syslog(event, shape < 0.93, True, values, chance)
    return event if shape < 0.6 else _syslog(event, shape < 0.8, True, values, chance)


def _looks_stamped(template: str) -> bool:
    return template.startswith(("{ts_", "[{ts_", "date=", "{epoch}"))


def _syslog(message: str, classic: bool, with_priority: bool, values: Values, chance: Random) -> str:  # noqa: FBT001 - two coins
    app, pid, text = _app_of(message, values, chance)
    priority = f"<{8 * chance.choice((1, 3, 4, 10, 16, 20, 23)) + chance.choice((3, 4, 5, 6))}>"
    if classic:
        tag = f"{app}[{pid}]" if pid else app
        return f"{priority if with_priority else ''}{values.draw('ts_bsd')} {values.draw('host')} {tag}: {text}"
    stamp, host = values.draw("ts_iso"), values.draw(chance.choice(("host", "fqdn")))
    return f"{priority}1 {stamp} {host} {app} {pid or '-'} - - {text}"


def _app_of(message: str, values: Values, chance: Random) -> tuple[str, str, str]:
    """Take the program's name from the message where it carries one, so that it is not said twice."""
    named = _APP.match(message)
    if named is not None:
        return named[1], named[2] or "", message[named.end() :]
    return chance.choice(_TAGS), chance.choice(("", values.draw("pid"))), message
