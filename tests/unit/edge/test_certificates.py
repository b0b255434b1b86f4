from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from dataflows.sections import ClientTls, ServerTls
from edge.certificates import Identity, expiry, identities, load_all
from edge.config import Config, Mqtt, SyslogTcp, Uplink
from models.contracts.errors import ConfigError


def config(directory: Path, expires: datetime | None = None) -> Config:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(directory / "ca.pem")
    own = authority.issue_cert("localhost", not_after=expires)
    own.private_key_pem.write_to_path(directory / "own.key")
    own.cert_chain_pems[0].write_to_path(directory / "own.pem")
    pair = {"certificate": str(directory / "own.pem"), "key": str(directory / "own.key")}
    return Config(
        sources=(
            SyslogTcp(name="tls", tls=ServerTls(**pair)),
            Mqtt(name="devices", topics=("a",), tls=ClientTls(ca=str(directory / "ca.pem"))),
        ),
        uplink=Uplink(tls=ClientTls(ca=str(directory / "ca.pem"), **pair)),
    )


def test_every_part_with_tls_gets_a_context_and_only_shown_certificates_are_identities(tmp_path: Path) -> None:
    configured = config(tmp_path)
    own = str(tmp_path / "own.pem")
    assert list(load_all(configured)) == ["source tls", "source devices", "uplink"]
    assert list(identities(configured)) == [Identity("source tls", own), Identity("uplink", own)]


def test_the_expiry_of_a_certificate_is_read_to_the_second(tmp_path: Path) -> None:
    expires = datetime.now(UTC).replace(microsecond=0) + timedelta(days=9)
    config(tmp_path, expires)
    assert expiry(str(tmp_path / "own.pem")) == expires


def test_an_expired_certificate_is_named_with_what_to_do(tmp_path: Path) -> None:
    expired = config(tmp_path, datetime.now(UTC) - timedelta(days=1))
    with pytest.raises(
        ConfigError, match=r"source tls: certificate .*own\.pem has expired; renew it, or set the clock"
    ):
        load_all(expired)
