"""Authorities and certificates in a test's own directory: good ones, and each kind of bad ones."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from distlog.runtime import SystemClock
from distlog.security.certificates import CLIENT, SERVER, TlsPaths
from distlog.security.files import RealFiles
from distlog.security.issue import Authority, Issued, general_name
from distlog.security.tls import Credentials

LOOPBACK = ("localhost", "127.0.0.1")
NODE_NAME = "URI:distlog://node/{node}"


class Pki:
    """One authority, and the files of what it has signed."""

    def __init__(self, directory: Path, name: str = "ca", days: float = 3650) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.now = datetime.now(UTC)
        self.authority = Authority.new(name, self.now, self.now + timedelta(days=days))
        self.name = name
        self.put(name, self.authority.issued)

    @property
    def ca(self) -> str:
        return str(self.directory / f"{self.name}.pem")

    def put(self, name: str, issued: Issued) -> None:
        """Write what was signed as the files NAME.pem and NAME.key, in place of what was there."""
        for suffix, data in ((".key", issued.key), (".pem", issued.certificate)):
            new = self.directory / f"{name}{suffix}.new"
            new.touch(0o600)
            new.write_bytes(data)
            new.replace(self.directory / f"{name}{suffix}")

    def trust(self, other: Pki) -> None:
        """Add another authority to the file that names this one."""
        both = Path(self.ca).read_bytes() + Path(other.ca).read_bytes()
        Path(self.ca).write_bytes(both)

    def paths(self, name: str, ca: str = "", peer_ca: str = "") -> TlsPaths:
        """Return the files of a name; it trusts `ca`, or else this authority."""
        stem = self.directory / name
        return TlsPaths(f"{stem}.pem", f"{stem}.key", ca or self.ca, peer_ca)

    def node(
        self,
        name: str,
        *,
        hosts: Sequence[str] = LOOPBACK,
        days: float = 30,
        begin_days: float = 0,
        file: str = "",
    ) -> TlsPaths:
        """Sign a certificate for a node, valid from `begin_days` to `days` from now."""
        begin, end = (self.now + timedelta(days=each) for each in (begin_days, days))
        self.put(file or name, self.authority.node(name, hosts, begin, end))
        return self.paths(file or name)

    def client(self, name: str, *, days: float = 30, begin_days: float = 0) -> TlsPaths:
        """Sign a certificate for a client."""
        begin, end = (self.now + timedelta(days=each) for each in (begin_days, days))
        self.put(name, self.authority.client(name, begin, end))
        return self.paths(name)

    def other(self, name: str, names: Sequence[str], unit: str = "") -> TlsPaths:
        """Sign a certificate of no kind that distlog makes, for hosts and of an organizational unit."""
        end = self.now + timedelta(days=30)
        alternatives: list[x509.GeneralName] = [general_name(each) for each in names]
        issued = self.authority.sign(name, alternatives, [SERVER, CLIENT], self.now, end, unit)
        self.put(name, issued)
        return self.paths(name)

    def with_key(
        self,
        name: str,
        key: CertificateIssuerPrivateKeyTypes,
        key_usage: x509.KeyUsage | None = None,
    ) -> TlsPaths:
        """Sign a certificate as that of a name, for another key, and perhaps another use of it."""
        paths = self.paths(name)
        old = x509.load_pem_x509_certificate(Path(paths.cert).read_bytes())
        extensions: list[x509.Extension[Any]] = [
            x509.Extension(each.oid, each.critical, key_usage)
            if key_usage is not None and each.oid == key_usage.oid
            else each
            for each in old.extensions
        ]
        builder = x509.CertificateBuilder(
            issuer_name=old.issuer,
            subject_name=old.subject,
            public_key=key.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=old.not_valid_before_utc,
            not_valid_after=old.not_valid_after_utc,
            extensions=extensions,
        )
        signer = load_pem_private_key(self.authority.issued.key, None)
        assert isinstance(signer, ec.EllipticCurvePrivateKey)
        certificate = builder.sign(signer, hashes.SHA256()).public_bytes(Encoding.PEM)
        data = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        self.put(name, Issued(certificate, data))
        return paths

    def credentials(self, paths: TlsPaths) -> Credentials:
        return Credentials(paths, RealFiles(), SystemClock())
