"""Real senders: rsyslog over UDP, TCP and TLS, and logger in every framing that it knows."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

from models.header import split
from tests.conftest import SYSTEM_PATH
from tests.real.intake import IntakeProcess, running, wait_until

NOW_MS = 1_795_000_000_000
UDP = '[[sources]]\nkind = "syslog-udp"\nname = "udp"\nport = 0\n'
TCP = '[[sources]]\nkind = "syslog-tcp"\nname = "tcp"\nport = 0\n'


def bodies(intake: IntakeProcess, source: str | None = None) -> list[str]:
    records = [r for arrival in intake.arrivals() if source in (None, arrival.source) for r in arrival.records]
    return [split(record.decode(), NOW_MS).body for record in records]


def logger(*arguments: str, lines: str = "") -> None:
    subprocess.run(["logger", *arguments], input=lines.encode(), check=True, timeout=30)


@pytest.mark.server("logger")
@pytest.mark.parametrize("framing", ["udp", "lines", "counted"])
def test_logger_is_understood_in_every_form(tmp_path: Path, framing: str) -> None:
    how = {"udp": ["-d"], "lines": ["-T"], "counted": ["-T", "--octet-count"]}[framing]
    forms = ["--rfc3164", "--rfc5424", "--rfc5424=notq", "--rfc5424=notime,nohost"]
    lines = [f"Failed password for root from 192.0.2.{n} port 22" for n in range(20)]
    with running(IntakeProcess(tmp_path, UDP + TCP)) as intake:
        target = ["-n", "127.0.0.1", "-P", str(intake.ports["udp" if framing == "udp" else "tcp"])]
        for number, form in enumerate(forms, 1):
            said = ["-t", "sshd", f"--id={number}", "-p", "authpriv.warning"]
            logger(*target, *said, *how, form, lines="\n".join(lines) + "\n")
            intake.wait_for_events(len(lines) * number)
        intake.stop()

    headers = [split(record.decode(), NOW_MS) for record in intake.records()]
    for number, form in enumerate(forms, 1):
        found = [header for header in headers if header.process_id == str(number)]
        assert [header.body for header in found] == [f"sshd: {line}" for line in lines]
        assert {(header.app, header.severity) for header in found} == {("sshd", 4)}
        assert {header.occurred_at_ms is None for header in found} == {"notime" in form}
    assert intake.status().counters.incidents == {}


@contextmanager
def rsyslog(directory: Path, forward: str, preamble: str = "") -> Iterator[Path]:
    """A sender with a local socket; what is written there goes where `forward` says."""
    binary = shutil.which("rsyslogd", path=SYSTEM_PATH)
    assert binary is not None
    directory.mkdir()
    entrance = directory / "log.sock"
    config = directory / "rsyslog.conf"
    config.write_text(
        f'global(workDirectory="{directory}" maxMessageSize="64k" {preamble})\n'
        'module(load="imuxsock" sysSock.use="off")\n'
        f'input(type="imuxsock" socket="{entrance}" createPath="on" useSpecialParser="off" parseHostname="on"\n'
        '  rateLimit.interval="0")\n'
        f"{forward}\n"
    )
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [binary, "-n", "-f", str(config), "-i", str(directory / "pid")], stdout=log, stderr=log
        )
    try:
        wait_until(lambda: entrance.exists() or process.poll() is not None, "rsyslog")
        assert process.poll() is None, (directory / "log").read_text()
        yield entrance
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def action(port: int, *more: str, protocol: str = "tcp") -> str:
    retry = 'queue.type="LinkedList" queue.size="10000" action.resumeRetryCount="-1" action.resumeInterval="1"'
    options = " ".join(more)
    return (
        f'action(type="omfwd" target="127.0.0.1" port="{port}" protocol="{protocol}" '
        f'template="RSYSLOG_SyslogProtocol23Format" {retry} {options})'
    )


@pytest.mark.server("rsyslogd")
@pytest.mark.parametrize("framing", ["udp", "traditional", "octet-counted"])
def test_rsyslog_forwards_everything(tmp_path: Path, framing: str) -> None:
    lines = [f"event {n} of many" for n in range(300)]
    with running(IntakeProcess(tmp_path, UDP + TCP)) as intake:
        forward = (
            action(intake.ports["udp"], protocol="udp")
            if framing == "udp"
            else action(intake.ports["tcp"], f'tcp_framing="{framing}"')
        )
        with rsyslog(tmp_path / "sender", forward) as entrance:
            logger("-u", str(entrance), "-t", "app", "-p", "user.info", lines="\n".join(lines) + "\n")
            wait_until(lambda: {f"app: {line}" for line in lines} <= set(bodies(intake)), "every line")
            intake.stop()

    assert len(bodies(intake)) >= len(lines)
    assert intake.status().counters.losses == {}


@pytest.mark.server("rsyslogd")
@pytest.mark.parametrize("known", [True, False])
def test_rsyslog_over_tls_is_let_in_only_with_a_certificate_of_our_authority(tmp_path: Path, *, known: bool) -> None:
    authority = trustme.CA()
    ca, server = tmp_path / "ca.pem", tmp_path / "server.pem"
    authority.cert_pem.write_to_path(ca)
    authority.issue_cert("127.0.0.1", "localhost").private_key_and_cert_chain_pem.write_to_path(server)
    identity = (authority if known else trustme.CA()).issue_cert("dev7")
    certificate, key = tmp_path / "dev7.pem", tmp_path / "dev7.key"
    identity.cert_chain_pems[0].write_to_path(certificate)
    identity.private_key_pem.write_to_path(key)
    tls = f'tls = {{ certificate = "{server}", key = "{server}", client_ca = "{ca}" }}\n'
    with running(IntakeProcess(tmp_path, TCP + tls)) as intake:
        forward = action(
            intake.ports["tcp"],
            'tcp_framing="octet-counted" streamDriver="ossl" streamDriverMode="1"',
            'streamDriverAuthMode="x509/name" streamDriverPermittedPeers="localhost"',
        )
        preamble = (
            f'defaultNetstreamDriverCAFile="{ca}" defaultNetstreamDriverCertFile="{certificate}" '
            f'defaultNetstreamDriverKeyFile="{key}"'
        )
        with rsyslog(tmp_path / "sender", forward, preamble) as entrance:
            logger("-u", str(entrance), "-t", "app", lines="sealed\n")
            if known:
                wait_until(lambda: "app: sealed" in bodies(intake), "the line")
            else:
                wait_until(
                    lambda: intake.status().counters.incidents.get(("tcp", "handshakes-failed"), 0) > 0, "a refusal"
                )
        intake.stop()

    assert bodies(intake) == (["app: sealed"] if known else [])
