"""The command line as an operator meets it: a process of its own, its exit code, its two streams."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from time import sleep

import pytest
from msgspec import UNSET

from dataflows.sections import Model
from edge.config import Config, SyslogTcp, SyslogUdp, read_config
from models.release_file import SHIPPED, digest_of, release_path
from tests.fakes.tiny_models import tiny_decoder

ROOT = Path(__file__).parents[3]


def edge(*arguments: str | Path, cwd: Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("HEADWATER_CONFIG", None)
    return subprocess.run(
        [sys.executable, "-m", "edge", *map(str, arguments)],
        cwd=cwd,
        env=environment,
        input=stdin,
        capture_output=True,
        timeout=100,
        check=False,
    )


def test_init_writes_a_configuration_with_the_defaults_that_the_types_have(tmp_path: Path) -> None:
    done = edge("init", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    config = read_config(tmp_path / "edge.toml")
    assert config.sources == (SyslogUdp(name="syslog-udp"), SyslogTcp(name="syslog-tcp"))
    assert config.model == Model(sha256=digest_of(release_path("soc-triage")))
    assert (config.gateway, config.spool, config.repeats, config.operations) == (
        Config().gateway,
        Config().spool,
        Config().repeats,
        Config().operations,
    )
    (output,) = config.outputs
    assert output == type(output)(name="verdicts", path="verdicts.jsonl")


def test_every_line_that_the_template_comments_out_is_a_key_that_exists(tmp_path: Path) -> None:
    """Comes true by uncommenting all of it: the parser refuses what it does not know."""
    edge("init", cwd=tmp_path)
    lines = (tmp_path / "edge.toml").read_text().splitlines()
    uncommented, top = [], []
    for line in lines:
        bare = line.removeprefix("# ")
        if bare.startswith("policy_file"):
            top.append(bare)
        elif line.startswith("# ") and not (bare.startswith("[") or " = " in bare.split("#")[0]):
            continue  # a sentence
        else:
            uncommented.append(bare)
    path = tmp_path / "whole.toml"
    path.write_text("\n".join(top + uncommented))
    config = read_config(path)
    assert len(config.sources) == 6
    assert {output.name for output in config.outputs} == {"verdicts", "bus", "centre", "siem", "terminal"}
    assert config.policy.accept_at is not UNSET
    assert config.dead_letters is not None


def test_init_keeps_what_is_there_unless_forced(tmp_path: Path) -> None:
    (tmp_path / "edge.toml").write_text("mine")
    done = edge("init", cwd=tmp_path)
    assert done.returncode == 2
    assert b"edge.toml: exists; kept it" in done.stderr
    assert (tmp_path / "edge.toml").read_text() == "mine"
    assert edge("init", "--force", cwd=tmp_path).returncode == 0
    read_config(tmp_path / "edge.toml")


def test_init_makes_the_folder_it_writes_to(tmp_path: Path) -> None:
    done = edge("init", "--path", "etc/headwater/edge.toml", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    read_config(tmp_path / "etc" / "headwater" / "edge.toml")
    (tmp_path / "taken").write_text("a file")
    done = edge("init", "--path", "taken/edge.toml", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, b"headwater: taken: is no folder; give another --path\n")


def test_check_says_what_is_wrong_and_what_to_do_one_finding_a_line(tmp_path: Path) -> None:
    model = tiny_decoder(tmp_path / "tiny.gguf")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (tmp_path / "edge.toml").write_text(
            f"""[model]
release = "{model}"
[operations]
port = 0
[[sources]]
kind = "syslog-tcp"
name = "tcp"
port = {port}
[[sources]]
kind = "mqtt"
name = "devices"
port = 1
topics = ["a"]
[[sources]]
kind = "file"
name = "tail"
path = "gone.log"
[[outputs]]
kind = "json-lines"
name = "verdicts"
path = "verdicts.jsonl"
"""
        )
        done = edge("check", cwd=tmp_path)
    lines = done.stdout.decode().splitlines()
    assert done.returncode == 1, done.stderr
    assert [line.split()[0] for line in lines[:-1]].count("problem") == 2
    assert lines[-1] == "2 problems"
    said = done.stdout.decode()
    assert f"127.0.0.1:{port}/tcp: Address already in use; stop what listens there" in said
    assert "broker 127.0.0.1:1: connection refused; start it, or mend `host` and `port`" in said
    assert "gone.log: does not exist yet" in said
    assert f'set `model.sha256 = "{digest_of(model)}"`' in said
    assert not (tmp_path / "state").exists()
    assert not (tmp_path / "verdicts.jsonl").exists()


def test_check_of_what_is_no_configuration_exits_2(tmp_path: Path) -> None:
    done = edge("check", "gone.toml", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(b"headwater: gone.toml: cannot be read")
    (tmp_path / "edge.toml").write_text("[gateway]\nepoch_ms = 1\n")
    done = edge("check", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (
        2,
        b"headwater: edge.toml: Expected `int` >= 10 - at `$.gateway.epoch_ms`\n",
    )


def test_classify_answers_files_and_standard_input_line_by_line(tmp_path: Path) -> None:
    model = tiny_decoder(tmp_path / "tiny.gguf")
    (tmp_path / "a.log").write_bytes(b"Jan  2 03:04:05 host sshd[1]: hello\n\n\xff\xfe\n")
    done = edge("classify", "--release", model, "a.log", "gone.log", "-", cwd=tmp_path, stdin=b"last")
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer.get("text", answer.get("reason")) for answer in answers] == [
        "Jan  2 03:04:05 host sshd[1]: hello",
        "empty",
        "\ufffd\ufffd",
        "last",
    ]
    assert answers[2]["replaced"] is True
    assert done.returncode == 1
    assert done.stderr.decode().splitlines() == [
        "headwater: gone.log: No such file or directory; went on with the next file",
        "headwater: 1 of 4 lines got a dead letter instead of a verdict; see `reason`",
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--release", "gone"], "headwater: model `gone`: no such file, and no shipped release of that name"),
        (["--release", "not-a-model.gguf"], "headwater: "),
    ],
)
def test_classify_with_a_model_that_cannot_be_used_exits_2_in_one_line(
    tmp_path: Path, arguments: list[str], said: str
) -> None:
    (tmp_path / "not-a-model.gguf").write_bytes(b"GGUF" + bytes(100))
    done = edge("classify", *arguments, "-", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == b""
    assert done.stderr.decode().startswith(said)
    assert done.stderr.count(b"\n") == 1


def test_the_help_of_classify_names_every_shipped_release(tmp_path: Path) -> None:
    said = edge("classify", "--help", cwd=tmp_path).stdout.decode()
    names = said.partition("Shipped releases: ")[2].strip().split(", ")
    assert names == sorted(path.stem for path in SHIPPED.glob("*.gguf"))


def test_classify_blames_standard_output_for_what_it_does_not_take(tmp_path: Path) -> None:
    model = tiny_decoder(tmp_path / "tiny.gguf")
    (tmp_path / "a.log").write_bytes(b"hello\n")
    for shell, code, said in (
        (">/dev/full", 1, "headwater: standard output: No space left on device; the answers end there\n"),
        (">&-", 2, "headwater: standard output: found closed, wanted where the answers go; nothing was read\n"),
    ):
        done = subprocess.run(
            ["sh", "-c", f'exec "$0" -m edge classify --release "$1" a.log a.log {shell}', sys.executable, str(model)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            timeout=100,
            check=False,
        )
        assert (done.returncode, done.stderr.decode()) == (code, said)


def test_an_interrupt_exits_130_and_says_nothing(tmp_path: Path) -> None:
    model = tiny_decoder(tmp_path / "tiny.gguf")
    with subprocess.Popen(
        [sys.executable, "-m", "edge", "classify", "--release", str(model), "-"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as waiting:
        assert waiting.stdin is not None
        assert waiting.stdout is not None
        waiting.stdin.write(b"hello\n")
        waiting.stdin.flush()
        assert waiting.stdout.readline().startswith(b"{")  # now it waits for more
        sleep(0.5)  # it has said so right before it waits, and Python looks for signals only before
        waiting.send_signal(signal.SIGINT)
        assert waiting.wait(60) == 130
        assert waiting.stderr is not None
        assert waiting.stderr.read() == b""


def test_a_reader_who_has_had_enough_is_no_error_to_report(tmp_path: Path) -> None:
    model = tiny_decoder(tmp_path / "tiny.gguf")
    (tmp_path / "a.log").write_bytes(b"hello\n" * 5000)
    with subprocess.Popen(
        [sys.executable, "-m", "edge", "classify", "--release", str(model), "a.log"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 141


@pytest.mark.parametrize("recipe", [["classify", "--release", "gone", "-"], ["run"]], ids=lambda recipe: recipe[0])
def test_a_file_that_lies_where_a_recipe_is_called_is_not_run_as_a_module(tmp_path: Path, recipe: list[str]) -> None:
    for module in ("structlog", "msgspec", "bytewax", "json"):
        (tmp_path / f"{module}.py").write_text("open('was-run', 'w').close()\nraise SystemExit(66)\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "HEADWATER"))}
    just = Path(sys.executable).with_name("just")
    done = subprocess.run(
        [just, "--justfile", ROOT / "Justfile", *recipe],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert not (tmp_path / "was-run").exists(), done.stderr
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(b"headwater: ") or b"\nheadwater: " in done.stderr


def test_help_needs_no_model_and_has_examples(tmp_path: Path) -> None:
    for command in ((), ("init",), ("check",), ("classify",), ("demo",)):
        done = edge(*command, "--help", cwd=tmp_path)
        assert done.returncode == 0
        assert b"Example" in done.stdout


def test_a_standard_output_that_is_full_is_said_in_a_sentence(tmp_path: Path) -> None:
    edge("init", cwd=tmp_path)
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "edge", "cache", "explain", "door opened"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=100,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == b"headwater: standard output cannot be written: No space left on device\n"
