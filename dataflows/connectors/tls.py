"""Certificates to TLS contexts, and what is wrong with them in words."""

import ssl
from pathlib import Path
from typing import Literal

from models.contracts.errors import ConfigError

_NOT_YET_VALID, _EXPIRED = 9, 10  # X509_V_ERR_…, which Python hands on as `verify_code`


def server_context(where: str, certificate: str, key: str, client_ca: str = "") -> ssl.SSLContext:
    """Return a listener's context (RFC 5425); with `client_ca`, a client must show a certificate that it signed.

    Raises:
        ConfigError: a file is missing, is not what it should be, or its time is over; `where` names the listener.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    load_identity(context, where, certificate, key, "server")
    if client_ca:
        _load_authority(context, where, client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(where: str, ca: str = "", certificate: str = "", key: str = "") -> ssl.SSLContext:
    """Return the context of a connection we make; an empty `ca` trusts what the system trusts.

    Raises:
        ConfigError: a file is missing, is not what it should be, or its time is over; `where` names the connection.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca:
        _load_authority(context, where, ca)
    else:
        context.load_default_certs()
    if certificate:
        load_identity(context, where, certificate, key or certificate, "client")
    return context


def load_identity(
    context: ssl.SSLContext, where: str, certificate: str, key: str, role: Literal["server", "client"]
) -> None:
    """Load a certificate and its key, and see that its time is not over.

    Raises:
        ConfigError: the file, what is wrong with it and what to do.
    """
    for path, what in ((certificate, "certificate"), (key, "key")):
        _check_readable(where, path, what)
    try:
        context.load_cert_chain(certificate, key, password="")  # else OpenSSL asks on the terminal, and waits
    except ssl.SSLError as error:
        reason = error.reason or str(error)
        if "KEY_VALUES_MISMATCH" in reason:
            raise ConfigError(
                f"{where}: key {key} does not belong to certificate {certificate}; give the pair"
            ) from error
        raise ConfigError(
            f"{where}: certificate {certificate} with key {key} cannot be used: {reason}; both must be PEM, the key "
            "without a passphrase"
        ) from error
    problem = _time_problem(certificate, key, role)
    if problem:
        raise ConfigError(f"{where}: certificate {certificate} {problem}; renew it, or set the clock")


def _load_authority(context: ssl.SSLContext, where: str, path: str) -> None:
    _check_readable(where, path, "CA file")
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        raise ConfigError(f"{where}: CA file {path} cannot be used: {error.reason or error}; it must be PEM") from error


def _check_readable(where: str, path: str, what: str) -> None:
    try:
        with Path(path).open("rb"):
            pass
    except OSError as error:
        raise ConfigError(
            f"{where}: {what} {path} cannot be read: {error.strerror}; look at the path and its owner"
        ) from error


def _time_problem(certificate: str, key: str, role: Literal["server", "client"]) -> str:
    """Shake hands with ourselves in memory, trusting just this certificate: OpenSSL then judges its dates."""
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    server.load_cert_chain(certificate, key)
    judge = client if role == "server" else server
    if role == "client":
        client.load_cert_chain(certificate, key)
        server.maximum_version = (
            ssl.TLSVersion.TLSv1_2
        )  # later versions tell a client of its refusal after the handshake
    judge.verify_mode = ssl.CERT_REQUIRED
    judge.load_verify_locations(certificate)
    judge.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):  # round trips; a handshake takes two
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError as error:
                return {_NOT_YET_VALID: "is not valid yet", _EXPIRED: "has expired"}.get(error.verify_code, "")
            except ssl.SSLError:
                return ""
    return ""
