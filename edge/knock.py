"""Knocks on the doors that a configuration names: would a broker or a SIEM let us in? Says what to do where not."""

import secrets
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from dataflows.sections import read_password
from edge.config import Mqtt, MqttOutput, SyslogOutput
from models.contracts.errors import UnavailableError

_WITHIN_S = 3.0
_CONNACK, _CONNACK_BYTES = 0x20, 4  # the shortest: type, length, flags, reason
# MQTT 5 section 3.2.2.2: what an operator can do something about.
_ADVICE = {
    0x84: "it does not speak MQTT 5: upgrade it, or turn version 5 on",
    0x85: "it does not accept our client id: set `client_id`",
    0x86: "it does not know this user name and password: set `username` and `password_file`",
    0x87: "it does not let this client in: look at its access list, our user name or certificate",
    0x88: "it is up but not serving",
    0x89: "it has too many clients or too much to do",
    0x8A: "an administrator has banned us",
}


def knock_broker(broker: Mqtt | MqttOutput, tls: ssl.SSLContext | None) -> None:
    """Connect as a client of another name, so that a running gateway keeps its session, and leave.

    Raises:
        UnavailableError: why it would not let us in, and what to do.
    """
    with _connected(broker.host, broker.port, tls, "broker") as sock:
        sock.sendall(_connect_packet(broker))
        answer = _receive(sock, 2)
        while len(answer) > 1 and answer[-1] & 0x80:  # a variable length goes on
            answer += _receive(sock, 1)
        answer += _receive(sock, 2)  # flags and reason; the properties do not matter to us
        if len(answer) < _CONNACK_BYTES or answer[0] != _CONNACK:
            why = "does it speak MQTT there, without TLS?" if tls is None else "does it want a certificate it trusts?"
            raise UnavailableError(f"broker {broker.host}:{broker.port}: hung up; {why}")
        code = answer[-1]
        if code:
            words = _ADVICE.get(code, "see its log")
            raise UnavailableError(f"broker {broker.host}:{broker.port}: refused with reason 0x{code:02x}; {words}")
        sock.sendall(b"\xe0\x00")  # DISCONNECT, normally


def knock_siem(siem: SyslogOutput, tls: ssl.SSLContext | None) -> None:
    """Connect and leave.

    Raises:
        UnavailableError: why it would not let us in, and what to do.
    """
    with _connected(siem.host, siem.port, tls, "SIEM"):
        pass


def _receive(sock: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        piece = sock.recv(size - len(received))
        if not piece:
            break
        received += piece
    return received


@contextmanager
def _connected(host: str, port: int, tls: ssl.SSLContext | None, what: str) -> Iterator[socket.socket]:
    name = f"{what} {host}:{port}"
    try:
        with socket.create_connection((host, port), timeout=_WITHIN_S) as plain:
            if tls is None:
                yield plain
            else:
                with tls.wrap_socket(plain, server_hostname=host) as sock:
                    yield sock
    except ssl.SSLCertVerificationError as error:
        raise UnavailableError(
            f"{name}: its certificate is not trusted: {error.verify_message}; look at `tls.ca`, its dates and `host`"
        ) from error
    except ssl.SSLError as error:
        raise UnavailableError(f"{name}: TLS failed: {error.reason or error}; does it speak TLS there?") from error
    except socket.gaierror as error:
        raise UnavailableError(
            f"{name}: the host has no address: {error.strerror}; mend `host` or the resolver"
        ) from error
    except ConnectionRefusedError as error:
        raise UnavailableError(f"{name}: connection refused; start it, or mend `host` and `port`") from error
    except TimeoutError as error:
        raise UnavailableError(f"{name}: no answer within {_WITHIN_S:.0f} s; is a firewall in between?") from error
    except OSError as error:
        raise UnavailableError(f"{name}: {error.strerror or error}; look at the network") from error


def _connect_packet(broker: Mqtt | MqttOutput) -> bytes:
    """Write a CONNECT (MQTT 5 section 3.1) with a clean start and nothing that outlives the connection."""
    flags, fields = 0x02, [f"headwater-check-{secrets.token_hex(4)}".encode()]
    if broker.username:
        flags |= 0x80
        fields.append(broker.username.encode())
    if broker.password_file:
        flags |= 0x40
        fields.append(read_password(broker.name, broker.password_file).encode())
    payload = b"".join(len(field).to_bytes(2) + field for field in fields)
    body = b"\x00\x04MQTT\x05" + bytes([flags]) + b"\x00\x0a\x00" + payload  # keep-alive 10 s, no properties
    return b"\x10" + _variable(len(body)) + body


def _variable(number: int) -> bytes:
    """Write a variable byte integer (MQTT 5 section 1.5.5)."""
    out = bytearray()
    while True:
        number, low = divmod(number, 128)
        out.append(low | (0x80 if number else 0))
        if not number:
            return bytes(out)
