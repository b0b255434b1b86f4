"""A broker that asks who one is: an authority, certificates and passwords, and access lists."""

from pathlib import Path

import trustme
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)
from cryptography.hazmat.primitives import serialization

from central.local_kafka import Guard, LocalKafka
from dataflows.connectors.kafka import Cluster

PASSWORD = "correct horse"  # noqa: S105 - of a broker that lives for a test
WITHIN_S = 60.0


class Gate:
    """The broker, and what its users show."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._authority = trustme.CA()
        self.authority = folder / "authority.pem"
        self._authority.cert_pem.write_to_path(str(self.authority))
        self.server = self.certificate("server")
        guard = Guard(
            authority=self.authority, server=self.server, server_name="server", passwords={"centre": PASSWORD}
        )
        self.kafka = LocalKafka(folder / "broker", guard=guard)

    def certificate(self, name: str, authority: trustme.CA | None = None) -> Path:
        """Issue a certificate; the file has its key in front, in the one form that Kafka reads."""
        issued = (authority or self._authority).issue_cert("127.0.0.1", common_name=name)
        key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
        path = self._folder / f"{name}.pem"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + b"".join(each.bytes() for each in issued.cert_chain_pems)
        )
        return path

    def by_certificate(self, path: Path | None) -> Cluster:
        shown = str(path) if path else ""
        return Cluster(
            brokers=self.kafka.brokers, tls=True, ca_file=str(self.authority), certificate_file=shown, key_file=shown
        )

    def by_password(self, username: str, password: str) -> Cluster:
        return Cluster(
            brokers=self.kafka.password_brokers,
            tls=True,
            ca_file=str(self.authority),
            mechanism="SCRAM-SHA-512",
            username=username,
            password=password,
        )

    def permit(self, user: str, kind: ResourceType, name: str, *operations: AclOperation) -> None:
        allowed = [
            AclBinding(kind, name, ResourcePatternType.LITERAL, f"User:{user}", "*", operation, AclPermissionType.ALLOW)
            for operation in operations
        ]
        admin = self.kafka.admin()  # which has to live until it is told what became of this
        for done in admin.create_acls(allowed).values():
            done.result(WITHIN_S)
