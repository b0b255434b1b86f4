"""What `edge check` finds beyond what its command line shows: see test_command_line.py for that."""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from msgspec.structs import replace

from dataflows.connectors.backlog import Backlog
from dataflows.running.findings import Finding
from dataflows.sections import Model
from edge.check import examine
from edge.config import Config, FileTail, Gateway, JsonLines, SyslogTcp, SyslogUdp
from edge.outputs import backlog_path
from models.contracts.policy import Policy
from tests.fakes.tiny_models import RELEASE, tiny_decoder


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(
        gateway=Gateway(state_dir=str(tmp_path / "state")),
        model=Model(release=str(tmp_path / "none.gguf")),
        outputs=(JsonLines(name="verdicts", path=str(tmp_path / "verdicts.jsonl")),),
    )


def found(config: Config, part: str) -> list[Finding]:
    return [finding for finding in examine(config, Path("edge.toml"), datetime.now(UTC)) if finding.part == part]


def backlogs(config: Config) -> list[Finding]:
    return found(config, "backlog")


def left(config: Config, output: str, *payloads: bytes) -> Path:
    """A backlog as a gateway that was stopped leaves it."""
    path = backlog_path(config, output)
    backlog = Backlog(path, 1 << 20)
    if payloads:
        backlog.append(len(payloads), payloads)
    backlog.close()
    return path


def test_what_waits_for_an_output_that_is_gone_is_named_with_what_to_do(config: Config) -> None:
    path = left(config, "siem", b"one", b"two")

    assert backlogs(config) == [
        Finding(
            "backlog",
            "problem",
            f"{path}: holds 2 payloads of an output `siem` that is not configured; configure it again under this name "
            "to deliver them, or stop the gateway and delete the file",
        )
    ]


def test_an_empty_backlog_of_an_output_that_is_gone_may_be_deleted(config: Config) -> None:
    path = left(config, "siem")

    assert backlogs(config) == [
        Finding("backlog", "note", f"{path}: empty, of an output `siem` that is not configured; it may be deleted")
    ]


def test_what_is_no_backlog_is_named_and_left_alone(config: Config) -> None:
    path = left(config, "siem")
    path.write_bytes(b"not a database, but long enough to be taken for one" * 100)

    (finding,) = backlogs(config)
    assert finding.state == "problem"
    assert finding.words.startswith(f"backlog {path}: cannot be read: file is not a database; no output `siem` is")
    assert path.read_bytes().startswith(b"not a database")


def test_the_backlogs_of_outputs_and_dead_letters_that_are_configured_are_not_mentioned(config: Config) -> None:
    left(config, "verdicts", b"one")
    left(config, "dead-letters", b"one")

    assert backlogs(config) == []


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (os.mkfifo, "found a named pipe, wanted a regular file; give a file; what is piped can come by `stdin`"),
        (os.mkdir, "found a folder, wanted a regular file; name one file in it"),
    ],
)
def test_a_source_that_is_no_file_is_named_and_not_waited_for(
    config: Config, tmp_path: Path, make: Callable[[Path], None], words: str
) -> None:
    make(tmp_path / "app.log")
    config = replace(config, sources=(FileTail(name="app", path=str(tmp_path / "app.log")),))

    assert found(config, "source app") == [Finding("source app", "problem", f"{tmp_path / 'app.log'}: {words}")]


def test_an_output_that_is_no_file_is_a_problem(config: Config, tmp_path: Path) -> None:
    for path, kind in ((tmp_path, "a folder"), (Path("/dev/full"), "a device")):
        config = replace(config, outputs=(JsonLines(name="verdicts", path=str(path)),))
        assert found(config, "output verdicts") == [
            Finding(
                "output verdicts",
                "problem",
                f"{path}: found {kind}, wanted a regular file; mend it or change `path`",
            )
        ]


def test_an_output_that_is_there_and_can_be_written_is_left_as_it_is(config: Config, tmp_path: Path) -> None:
    (tmp_path / "verdicts.jsonl").write_text("half a line")
    assert [finding.state for finding in found(config, "output verdicts")] == ["ok"]
    assert (tmp_path / "verdicts.jsonl").read_text() == "half a line"


def test_an_output_that_cannot_be_opened_is_a_problem(config: Config, tmp_path: Path) -> None:
    (tmp_path / "verdicts.jsonl").symlink_to(tmp_path / "verdicts.jsonl")
    (finding,) = found(config, "output verdicts")
    assert finding.state == "problem"
    assert "cannot be opened to write: Too many levels of symbolic links; mend it or change `path`" in finding.words


def test_each_label_with_a_threshold_of_its_own_is_named(config: Config, tmp_path: Path) -> None:
    policy = Policy(number=3, accept_at=0.8, accept_at_by_label={"critical": 0.95, "benign": 1.0}, mass_floor=0.5)
    model = Model(release=str(tiny_decoder(tmp_path / "tiny.gguf", replace(RELEASE, policy=policy))))

    assert found(replace(config, model=model), "policy") == [
        Finding(
            "policy",
            "ok",
            "number 3: accepted from 0.8, `benign` never, `critical` from 0.95, and with a label mass from 0.5; "
            "else review",
        )
    ]


def test_an_address_that_is_not_ours_is_not_said_to_be_taken(config: Config) -> None:
    config = replace(
        config, sources=(SyslogTcp(name="tcp", host="192.0.2.1"), SyslogUdp(name="udp", host="fe80::1%gone"))
    )

    (tcp,), (udp,) = found(config, "source tcp"), found(config, "source udp")
    assert (tcp.state, udp.state) == ("problem", "problem")
    assert tcp.words.endswith("Cannot assign requested address; no interface of this machine has this address")
    assert udp.words.endswith("; look at the host and the port")
