"""What an operator gets wrong: one sentence with file, key, found and wanted; exit 2 before any socket opens."""

import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from tests.faults.gateway import STARTS_WITHIN_S, Gateway


def refused(gateway: Gateway, *, exit_code: int = 2) -> str:
    """Start it, see that it exits without a traceback and without having listened, and return what it said."""
    gateway.process.start()
    assert gateway.process.wait(STARTS_WITHIN_S) == exit_code
    said = gateway.process.log_tail()
    assert "Traceback" not in said
    assert "intake_listening" not in said
    assert not gateway.output.exists()
    return said.splitlines()[-1].replace(str(gateway.directory), "")


def edited(gateway: Gateway, found: str, replacement: str) -> Gateway:
    text = gateway.process.config.read_text()
    assert found in text
    gateway.process.config.write_text(text.replace(found, replacement))
    return gateway


@pytest.mark.parametrize(
    ("found", "replacement", "message"),
    [
        ("epoch_ms = 200", "epoch_ms = 5", "headwater: /edge.toml: Expected `int` >= 10 - at `$.gateway.epoch_ms`"),
        ("epoch_ms = 200", "epoch_ms = ", "headwater: /edge.toml: Invalid value (at line 4, column 12)"),
    ],
)
def test_a_configuration_that_cannot_be_read_is_refused(
    tmp_path: Path, quick_model: Path, found: str, replacement: str, message: str
) -> None:
    assert refused(edited(Gateway(tmp_path, quick_model), found, replacement)).startswith(message)


def test_a_missing_model_is_named(tmp_path: Path, quick_model: Path) -> None:
    said = refused(edited(Gateway(tmp_path, quick_model), str(quick_model), "/nowhere/model.gguf"))
    assert said.startswith("headwater: model `/nowhere/model.gguf`: no such file, and no shipped release of that name")


def test_another_model_than_was_promised_is_named_with_both_digests(tmp_path: Path, quick_model: Path) -> None:
    said = refused(Gateway(tmp_path, quick_model, more_model=f'sha256 = "{"ab" * 32}"'))
    assert str(quick_model) in said
    assert "ab" * 32 in said
    assert "beside that, else somebody changed the file" in said


def test_a_severity_for_a_label_that_the_model_does_not_have_is_named(tmp_path: Path, quick_model: Path) -> None:
    siem = '[[outputs]]\nkind = "syslog"\nname = "siem"\nseverity_by_label = { odd = 3 }\n'
    said = refused(Gateway(tmp_path, quick_model, outputs=siem))
    assert said.startswith("headwater: /edge.toml: output siem: `severity_by_label`: found `odd`, wanted one of [")


def test_an_expired_certificate_is_named_with_what_to_do(tmp_path: Path, quick_model: Path) -> None:
    expired = trustme.CA().issue_cert("localhost", not_after=datetime.now(UTC) - timedelta(days=1))
    expired.private_key_and_cert_chain_pem.write_to_path(tmp_path / "own.pem")
    tls = f'tls = {{ certificate = "{tmp_path}/own.pem", key = "{tmp_path}/own.pem" }}\n'
    gateway = Gateway(tmp_path, quick_model, f'[[sources]]\nkind = "syslog-tcp"\nname = "tls"\nport = 0\n{tls}')
    assert refused(gateway) == ("headwater: source tls: certificate /own.pem has expired; renew it, or set the clock")


@pytest.mark.parametrize("kind", ["syslog-tcp", "syslog-udp"])
def test_a_port_in_use_is_named_with_what_to_do_and_may_be_free_at_the_next_start(
    tmp_path: Path, quick_model: Path, kind: str
) -> None:
    transport = socket.SOCK_STREAM if kind == "syslog-tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, transport) as taken:
        taken.bind(("127.0.0.1", 0))
        if transport == socket.SOCK_STREAM:
            taken.listen()
        port = taken.getsockname()[1]
        said = refused(
            Gateway(tmp_path, quick_model, f'[[sources]]\nkind = "{kind}"\nname = "second"\nport = {port}\n'),
            exit_code=1,
        )
    assert str(port) in said
    assert "second" in said
    assert "in use" in said


def test_more_than_one_worker_is_refused(tmp_path: Path, quick_model: Path) -> None:
    gateway = Gateway(tmp_path, quick_model, environment={"BYTEWAX_WORKERS_PER_PROCESS": "2"})
    assert "bytewax.run: found -w 2, wanted 1" in refused(gateway)


def test_a_gateway_is_no_process_of_a_cluster(tmp_path: Path, quick_model: Path) -> None:
    environment = {"BYTEWAX_PROCESS_ID": "0", "BYTEWAX_ADDRESSES": "127.0.0.1:2101"}
    gateway = Gateway(tmp_path, quick_model, environment=environment)
    assert "found -i and -a, wanted neither" in refused(gateway)
