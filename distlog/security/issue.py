"""Certificates for trying things out: an authority, and what it signs for nodes and clients."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from distlog.security.certificates import CLIENT, SERVER
from distlog.security.peer_name import NODE_SUBJECT

# Clocks differ.
BEFORE = timedelta(minutes=5)
NAME_LENGTH_MAX = 64


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its key, in PEM."""

    certificate: bytes
    key: bytes = field(repr=False)


class Authority:
    """Signs certificates."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._certificate = certificate
        self._key = key

    @classmethod
    def new(cls, name: str, begin: datetime, end: datetime) -> Authority:
        """Make one that trusts itself."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(name, name, key.public_key(), begin, end)
        builder = builder.add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        builder = builder.add_extension(_key_usage(is_authority=True), critical=True)
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        builder = builder.add_extension(identifier, critical=False)
        return cls(builder.sign(key, hashes.SHA256()), key)

    @classmethod
    def from_pem(cls, certificate: bytes, key: bytes) -> Authority:
        """Take one that was made before.  Raises ValueError or TypeError if that is none."""
        loaded = load_pem_private_key(key, None)
        found = x509.load_pem_x509_certificate(certificate)
        if not isinstance(loaded, ec.EllipticCurvePrivateKey):
            raise ValueError("the key is of another kind than those that distlog makes")
        if loaded.public_key() != found.public_key():
            raise ValueError("the key is not that of the certificate")
        return cls(found, loaded)

    @property
    def issued(self) -> Issued:
        return _issued(self._certificate, self._key)

    @property
    def end(self) -> datetime:
        """When it ends to be valid."""
        return self._certificate.not_valid_after_utc

    def node(self, node_id: str, hosts: Sequence[str], begin: datetime, end: datetime) -> Issued:
        """Sign a certificate for a node, which is a server to its clients, and a peer and a client to the other nodes."""
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(NODE_SUBJECT + node_id)]
        names += [general_name(host) for host in hosts]
        return self.sign(node_id, names, [SERVER, CLIENT], begin, end)

    def client(self, name: str, begin: datetime, end: datetime) -> Issued:
        """Sign a certificate for a client, whose subject is `name`."""
        return self.sign(name, [subject_name(name)], [CLIENT], begin, end)

    def sign(
        self,
        name: str,
        alternatives: Sequence[x509.GeneralName],
        uses: Sequence[x509.ObjectIdentifier],
        begin: datetime,
        end: datetime,
        unit: str = "",
    ) -> Issued:
        """Sign a certificate for `name`, of an organizational unit if one is given; it never outlives this authority."""
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = self._certificate.subject
        builder = _builder(name, issuer, key.public_key(), begin, min(end, self.end), unit)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        builder = builder.add_extension(_key_usage(is_authority=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = builder.add_extension(signer, critical=False)
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), False)
        return _issued(builder.sign(self._key, hashes.SHA256()), key)


def subject_name(name: str) -> x509.GeneralName:
    """Return the name of a client as a certificate has it.  Raises ValueError for what looks like an address of e-mail and is none."""
    return x509.RFC822Name(name) if "@" in name else x509.DNSName(name)


def general_name(host: str) -> x509.GeneralName:
    """Return an address or a name of a host as a certificate has it.  Raises ValueError if it can be neither."""
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _builder(
    name: str,
    issuer: str | x509.Name,
    key: ec.EllipticCurvePublicKey,
    begin: datetime,
    end: datetime,
    unit: str = "",
) -> x509.CertificateBuilder:
    own = _name(name, unit)
    return x509.CertificateBuilder(
        issuer_name=_name(issuer) if isinstance(issuer, str) else issuer,
        subject_name=own,
        public_key=key,
        serial_number=x509.random_serial_number(),
        not_valid_before=begin - BEFORE,
        not_valid_after=end,
    )


def _name(name: str, unit: str = "") -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, name[:NAME_LENGTH_MAX])]
    if unit:
        attributes.append(x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit))
    return x509.Name(attributes)


def _key_usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _issued(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Issued:
    return Issued(
        certificate.public_bytes(Encoding.PEM),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )
