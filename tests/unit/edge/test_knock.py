import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from time import monotonic, sleep

import pytest
import trustme

from dataflows.connectors.tls import client_context
from dataflows.running.child import free_port
from edge.config import Mqtt, MqttOutput, SyslogOutput
from edge.knock import knock_broker, knock_siem
from models.contracts.errors import UnavailableError


@contextmanager
def far_end(answer: bytes, tls: ssl.SSLContext | None = None) -> Iterator[tuple[int, list[bytes]]]:
    """Something that reads one packet, answers, and hangs up."""
    heard: list[bytes] = []

    def serve(server: socket.socket) -> None:
        plain, _ = server.accept()
        with plain:
            try:
                connection = plain if tls is None else tls.wrap_socket(plain, server_side=True)
                with connection:
                    if answer:
                        heard.append(connection.recv(4096))
                        connection.sendall(answer)
            except OSError:
                return

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = Thread(target=serve, args=(server,))
        thread.start()
        yield server.getsockname()[1], heard
        thread.join(10)


def broker(port: int, **more: str) -> Mqtt:
    return Mqtt(name="devices", port=port, topics=("a",), **more)  # type: ignore[arg-type]


def refusal(port: int, tls: ssl.SSLContext | None = None) -> str:
    with pytest.raises(UnavailableError) as refused:
        knock_broker(broker(port), tls)
    return str(refused.value)


def test_a_broker_that_lets_us_in_is_told_who_we_are(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("secret\n")
    with far_end(b"\x20\x03\x00\x00\x00") as (port, heard):
        knock_broker(MqttOutput(name="bus", port=port, username="gw", password_file=str(password)), None)
    assert heard[0].startswith(b"\x10")
    assert b"\x00\x04MQTT\x05\xc2" in heard[0]
    assert heard[0].endswith(b"\x00\x02gw\x00\x06secret")


def test_a_refusal_is_named_with_what_to_do() -> None:
    with far_end(b"\x20\x03\x00\x87\x00") as (port, _):
        assert refusal(port) == (
            f"broker 127.0.0.1:{port}: refused with reason 0x87; "
            "it does not let this client in: look at its access list, our user name or certificate"
        )


def test_an_answer_with_long_properties_is_read_all_the_same() -> None:
    with far_end(b"\x20\x83\x01\x00\x86\x80\x01" + b"x" * 128) as (port, _):
        assert "reason 0x86; it does not know this user name and password" in refusal(port)


def test_whatever_is_not_a_broker_is_asked_whether_it_is_one() -> None:
    with far_end(b"HTTP/1.1 400 Bad Request\r\n") as (port, _):
        assert refusal(port) == f"broker 127.0.0.1:{port}: hung up; does it speak MQTT there, without TLS?"


def test_nobody_there_is_a_refused_connection() -> None:
    port = free_port()
    assert refusal(port) == f"broker 127.0.0.1:{port}: connection refused; start it, or mend `host` and `port`"


def test_an_untrusted_certificate_is_told_from_no_tls_at_all(tmp_path: Path) -> None:
    ours, theirs = trustme.CA(), trustme.CA()
    ours.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = client_context("output siem", str(tmp_path / "ca.pem"))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.issue_cert("localhost", "127.0.0.1").configure_cert(server)
    with far_end(b"", server) as (port, _), pytest.raises(UnavailableError, match="certificate is not trusted"):
        knock_siem(SyslogOutput(name="siem", port=port), context)
    with far_end(b"hello") as (port, _), pytest.raises(UnavailableError, match="does it speak TLS there"):
        knock_siem(SyslogOutput(name="siem", port=port), context)


@pytest.mark.server("mosquitto")
def test_a_real_broker_lets_us_in_or_says_why_not(tmp_path: Path) -> None:
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    assert program is not None
    open_port, closed_port = free_port(), free_port()
    (tmp_path / "mosquitto.conf").write_text(
        f"per_listener_settings true\n"
        f"listener {open_port} 127.0.0.1\nallow_anonymous true\n"
        f"listener {closed_port} 127.0.0.1\nallow_anonymous false\n"
    )
    with subprocess.Popen([program, "-c", tmp_path / "mosquitto.conf"], stderr=subprocess.DEVNULL) as real:
        try:
            deadline = monotonic() + 10
            while True:
                try:
                    knock_broker(broker(open_port), None)
                    break
                except UnavailableError:
                    assert monotonic() < deadline
                    sleep(0.02)
            assert "reason 0x87; it does not let this client in" in refusal(closed_port)
        finally:
            real.terminate()
