"""Certificates that cannot work are refused at the start, in words, with the file and what to do."""

import datetime as dt
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from dataflows.connectors.tls import client_context, server_context
from models.contracts.errors import ConfigError

NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)


class Files:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.ca = trustme.CA()
        self.authority = self.write("ca.pem", self.ca.cert_pem.bytes())

    def write(self, name: str, content: bytes) -> str:
        path = self._directory / name
        path.write_bytes(content)
        return str(path)

    def identity(self, name: str, since: dt.datetime = NOW - DAY, until: dt.datetime = NOW + DAY) -> tuple[str, str]:
        leaf = self.ca.issue_cert("127.0.0.1", not_before=since, not_after=until)
        certificate = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
        return self.write(f"{name}.pem", certificate), self.write(f"{name}.key", leaf.private_key_pem.bytes())


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_a_good_pair_serves_with_and_without_client_certificates(files: Files) -> None:
    server_context("source `tls`", *files.identity("good"))
    server_context("source `tls`", *files.identity("good"), files.authority)
    client_context("source `mqtt`", files.authority, *files.identity("client"))
    client_context("source `mqtt`")


@pytest.mark.parametrize(
    ("since", "until", "words"),
    [(NOW - 3 * DAY, NOW - DAY, "has expired; renew it"), (NOW + DAY, NOW + 3 * DAY, "is not valid yet; renew it")],
)
def test_a_certificate_out_of_its_time_is_refused_on_either_side(
    files: Files, since: dt.datetime, until: dt.datetime, words: str
) -> None:
    pair = files.identity("late", since, until)
    with pytest.raises(ConfigError, match=words):
        server_context("source `tls`", *pair)
    with pytest.raises(ConfigError, match=words):
        client_context("source `mqtt`", files.authority, *pair)


def test_a_key_of_another_certificate_is_refused(files: Files) -> None:
    certificate, _ = files.identity("one")
    _, key = files.identity("other")
    with pytest.raises(ConfigError, match="does not belong to certificate"):
        server_context("source `tls`", certificate, key)


def test_a_key_under_a_passphrase_is_refused_and_not_asked_for(files: Files) -> None:
    certificate, key = files.identity("one")
    sealed = load_pem_private_key(Path(key).read_bytes(), None).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
    )
    with pytest.raises(ConfigError, match="the key without a passphrase"):
        server_context("source `tls`", certificate, files.write("sealed.key", sealed))


def test_a_missing_file_is_named(files: Files) -> None:
    certificate, key = files.identity("one")
    with pytest.raises(ConfigError, match=r"source `tls`: key /nowhere/x.key cannot be read: No such file"):
        server_context("source `tls`", certificate, "/nowhere/x.key")
    with pytest.raises(ConfigError, match=r"CA file /nowhere/ca.pem cannot be read"):
        server_context("source `tls`", certificate, key, "/nowhere/ca.pem")


def test_a_file_that_is_no_certificate_is_refused(files: Files) -> None:
    nonsense = files.write("nonsense.pem", b"not a certificate\n")
    _, key = files.identity("one")
    with pytest.raises(ConfigError, match="cannot be used"):
        server_context("source `tls`", nonsense, key)
    with pytest.raises(ConfigError, match="cannot be used"):
        client_context("source `mqtt`", nonsense)
