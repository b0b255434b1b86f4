from pathlib import Path

import pytest

from edge.config import read_config
from edge.examine import require_sound
from models.contracts.errors import ConfigError

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


@pytest.mark.parametrize(
    ("text", "message"),
    [
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
        (GOOD + "[model]\nthread = 2\n", "/edge.toml: Object contains unknown field `thread` - at `$.model`"),
        (GOOD.replace('"syslog-udp"\nname', '"syslog"\nname'), "/edge.toml: Invalid value 'syslog' - at `$.sources[1]"),
    ],
)
def test_what_cannot_work_is_refused_with_file_key_found_and_wanted(tmp_path: Path, text: str, message: str) -> None:
    assert message in refusal(tmp_path, text)
