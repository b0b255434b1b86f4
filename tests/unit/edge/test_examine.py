from pathlib import Path

import pytest

from edge.config import Mqtt, MqttOutput, client_id, read_config
from edge.examine import require_known_labels, require_sound
from models.contracts.errors import ConfigError
from models.contracts.task import Label, Task
from tests.fakes.classifier import release

GOOD = """
[[sources]]
kind = "syslog-tcp"
name = "tcp"

[[sources]]
kind = "syslog-udp"
name = "udp"

[[outputs]]
kind = "json-lines"
name = "verdicts"
path = "verdicts.jsonl"
"""
DEVICES = '[[sources]]\nkind = "mqtt"\nname = "bus"\ntopics = ["devices"]\n'
SIEM = '[[outputs]]\nkind = "syslog"\nname = "siem"\nformat = "cef"\n'
KAFKA = '[[outputs]]\nkind = "kafka"\nname = "centre"\n'
UPLINK = "[uplink]\n"
BUS = '[[outputs]]\nkind = "mqtt"\nname = "bus"\n'


def refusal(tmp_path: Path, text: str) -> str:
    path = tmp_path / "edge.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as refused:
        require_sound(read_config(path), path)
    return str(refused.value).replace(str(tmp_path), "")


def test_tcp_and_udp_may_share_a_port_number(tmp_path: Path) -> None:
    path = tmp_path / "edge.toml"
    path.write_text(GOOD)
    require_sound(read_config(path), path)


def test_a_source_and_an_output_of_one_name_are_two_clients_of_their_broker(tmp_path: Path) -> None:
    path = tmp_path / "edge.toml"
    path.write_text(GOOD + DEVICES + BUS)
    config = read_config(path)
    require_sound(config, path)
    source, output = config.sources[-1], config.outputs[-1]
    assert isinstance(source, Mqtt)
    assert isinstance(output, MqttOutput)
    assert client_id("gw", source) == "gw-bus-in"
    assert client_id("gw", output) == "gw-bus-out"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            GOOD + KAFKA + 'topic = "of events"\n',
            "/edge.toml: output centre: `topic`: found `of events`, wanted letters, digits, `.`, `_` and `-`, 249",
        ),
        (
            GOOD + KAFKA + 'username = "gw"\n',
            "/edge.toml: output centre: `mechanism`: found `` with the user name `gw`, wanted both or neither",
        ),
        ("", "/edge.toml: `sources`: found none, wanted at least one `[[sources]]`"),
        (GOOD[: GOOD.index("[[outputs]]")], "/edge.toml: `outputs`: found none, wanted at least one `[[outputs]]`"),
        (
            GOOD + '[[sources]]\nkind = "syslog-tcp"\nname = "other"\n',
            "/edge.toml: `port`: found 127.0.0.1:5514/tcp for source tcp and source other; each needs its own",
        ),
        (
            GOOD + "[operations]\nport = 5514\n",
            "/edge.toml: `port`: found 127.0.0.1:5514/tcp for operations and source tcp; each needs its own",
        ),
        (
            GOOD + '[dead_letters]\nname = "letters"\npath = "./verdicts.jsonl"\n',
            "/edge.toml: `path`: found ./verdicts.jsonl for verdicts and letters; each needs its own",
        ),
        (
            GOOD.replace('name = "tcp"', 'name = "tcp"\ntls = { certificate = "gone.pem", key = "gone.key" }'),
            "source tcp: certificate gone.pem cannot be read",
        ),
        (GOOD + '[[sources]]\nkind = "stdin"\nname = "tcp"\n', "/edge.toml: `sources`: the name `tcp` occurs 2 times"),
        (
            GOOD + '[[sources]]\nkind = "mqtt"\nname = "devices"\ntopics = ["a/#", "a/b"]\n',
            "/edge.toml: source devices: `topics`: `a/#` and `a/b` overlap",
        ),
        (
            GOOD + DEVICES + BUS + 'client_id = "gateway-bus-out"\n',
            "/edge.toml: Object contains unknown field `client_id`",
        ),
        (
            GOOD + DEVICES + 'client_id = "gateway-bus-out"\n' + BUS,
            "/edge.toml: `client_id`: found gateway-bus-out at 127.0.0.1:1883 for source bus and output bus; each",
        ),
        (
            GOOD + DEVICES + 'password_file = "gone"\n',
            "/edge.toml: source bus: `password_file` gone cannot be read",
        ),
        (GOOD + BUS + 'password_file = "gone"\n', "/edge.toml: output bus: `password_file` gone cannot be read"),
        (GOOD + BUS + 'topic = "a/#"\n', "/edge.toml: output bus: `topic`"),
        (
            GOOD + '[dead_letters]\nname = "verdicts"\npath = "letters.jsonl"\n',
            "/edge.toml: `outputs` and `dead_letters`: the name `verdicts` occurs 2 times",
        ),
        (
            GOOD.replace('"verdicts"', '"dead-letters"'),
            "/edge.toml: `outputs` and `dead_letters`: the name `dead-letters` occurs 2 times",
        ),
        (
            GOOD.replace('"verdicts.jsonl"', '"state/dead-letters.jsonl"'),
            "/edge.toml: `path`: found state/dead-letters.jsonl for verdicts and dead-letters; each needs its own",
        ),
        (
            GOOD + '[[sources]]\nkind = "file"\nname = "own"\npath = "./verdicts.jsonl"\n',
            "/edge.toml: `path`: found ./verdicts.jsonl for source own and output verdicts",
        ),
        (GOOD + "[spool]\nmax_bytes = 10\n", "/edge.toml: Expected `int` >= 1048576 - at `$.spool.max_bytes`"),
        (
            GOOD.replace('name = "udp"', 'name = "udp"\nmax_event_bytes = 600000') + "[spool]\nmax_bytes = 1048576\n",
            "/edge.toml: source udp: `max_event_bytes`: found 600000, wanted at most 524288",
        ),
        (
            GOOD + SIEM.replace("cef", "rfc5424") + "cef_severity_by_label = { critical = 9 }\n",
            "/edge.toml: output siem: `cef_severity_by_label`: found it with `format` rfc5424, wanted `cef`",
        ),
        (
            GOOD + SIEM + "severity_by_label = { critical = 8 }\n",
            "/edge.toml: Expected `int` <= 7 - at `$.outputs[1].severity_by_label[...]`",
        ),
        (GOOD + "[model]\nthread = 2\n", "/edge.toml: Object contains unknown field `thread` - at `$.model`"),
        (GOOD.replace('"syslog-udp"\nname', '"syslog"\nname'), "/edge.toml: Invalid value 'syslog' - at `$.sources[1]"),
    ],
)
def test_what_cannot_work_is_refused_with_file_key_found_and_wanted(tmp_path: Path, text: str, message: str) -> None:
    assert message in refusal(tmp_path, text)


@pytest.mark.parametrize("key", ["severity_by_label", "cef_severity_by_label"])
def test_a_severity_for_a_label_that_the_release_does_not_have_is_refused(tmp_path: Path, key: str) -> None:
    path = tmp_path / "edge.toml"
    path.write_text(GOOD + SIEM + f"{key} = {{ critical = 1, odd = 3 }}\n")
    with pytest.raises(ConfigError) as refused:
        require_known_labels(read_config(path), path, release(3))
    assert str(refused.value) == (
        f"{path}: output siem: `{key}`: found `odd`, wanted one of ['benign', 'suspicious', 'critical'], the labels of "
        "scripted-3"
    )


def test_severities_that_nobody_configured_suit_a_release_with_other_labels(tmp_path: Path) -> None:
    path = tmp_path / "edge.toml"
    path.write_text(GOOD + SIEM)
    routing = Task(
        name="routing", instruction="Route.", labels=(Label("billing", "b"), Label("other", "o")), default_label="other"
    )
    require_known_labels(read_config(path), path, release(task=routing))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (UPLINK + 'root = "a/#"\n', "/edge.toml: `uplink`: `root`: found `a/#`; wanted levels of a topic"),
        (UPLINK + 'routes = ["escalated"]\n', "/edge.toml: `uplink`: `routes`: found escalated without unsure"),
        (UPLINK + 'password_file = "/nowhere"\n', "/edge.toml: `uplink`: `password_file` /nowhere cannot be read"),
        (UPLINK + "[spool]\nmax_bytes = 1048576\n", "/edge.toml: `spool.max_bytes`: found 1048576 with an `[uplink]`"),
        (
            UPLINK + DEVICES + 'client_id = "gateway-answers"\n',
            "/edge.toml: `client_id`: found gateway-answers at 127.0.0.1:1883 for uplink and source bus",
        ),
    ],
)
def test_an_uplink_that_cannot_work_is_refused(tmp_path: Path, text: str, message: str) -> None:
    assert refusal(tmp_path, GOOD + text).startswith(message)


def test_an_uplink_is_an_output_enough_unless_nothing_goes_up(tmp_path: Path) -> None:
    sources = GOOD[: GOOD.index("[[outputs]]")]
    path = tmp_path / "edge.toml"
    path.write_text(sources + UPLINK)
    require_sound(read_config(path), path)

    assert "`outputs`: found none" in refusal(tmp_path, f"{sources}{UPLINK}routes = []\n")
