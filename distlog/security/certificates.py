"""Certificates and keys in files: read, checked, and what is wrong with them in words.

What is checked here is what a person gets wrong: the chain of trust, the host and the dates are checked again, by OpenSSL or
BoringSSL, in every handshake.  No problem ever quotes a file.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from distlog.errors import ConfigurationInvalid
from distlog.security.files import Files, read_whole

CERT, KEY, CA, PEER_CA = "--tls-cert", "--tls-key", "--tls-ca", "--tls-peer-ca"
SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
CHAIN_LENGTH_MAX = 10
# Of those of OpenSSL, the curves that BoringSSL takes unasked, with which gRPC comes.
CURVES = ("secp256r1", "secp384r1")
# What is raised for what is damaged inside, often only when that part is looked at.
UNREADABLE = (
    # Older versions of the library look up what they do not know in a table.
    KeyError,
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
    x509.InvalidVersion,
)
USES = {SERVER: "serverAuth", CLIENT: "clientAuth"}


@dataclass(frozen=True, slots=True)
class TlsPaths:
    """The files of one process."""

    # The certificate, after it those between it and the authority; "": a client that shows none.
    cert: str
    key: str
    # Of those who sign the others.
    ca: str
    # Of those who sign the nodes; "": the same.
    peer_ca: str = ""

    @property
    def all(self) -> tuple[str, ...]:
        return tuple(path for path in (self.cert, self.key, self.ca, self.peer_ca) if path)


@dataclass(frozen=True, slots=True)
class Identity:
    """What was in the files, checked."""

    # All in PEM.
    chain: bytes
    key: bytes = field(repr=False)
    # Who signs those that this process meets: clients and nodes; nodes alone.
    authorities: bytes
    peer_authorities: bytes
    # The names of the certificate, as `names_of` returns them.
    names: tuple[str, ...]
    # Seconds since the epoch when the chain ends to be valid, and when the first of the authorities does.
    expires_at_s: float
    authorities_expire_at_s: float
    # When the files, as they are, say something else: one of their authorities ends, or begins, to be valid.
    changes_at_s: float


def read_identity(
    paths: TlsPaths, files: Files, now_s: float, uses: Sequence[x509.ObjectIdentifier] = ()
) -> Identity:
    """Read the files and check that they belong together and are valid at `now_s`.

    uses: what the certificate must be made for.  Raises ConfigurationInvalid, which names the flag and the file.
    """
    try:
        return _read_identity(paths, files, now_s, uses)
    except UNREADABLE:
        # Of all that a certificate may hold, something is damaged, or of a kind that nobody here knows.
        problem = (
            f"{paths.cert or paths.ca}, or an authority, holds what cannot be read: get another one"
        )
        raise ConfigurationInvalid(CERT if paths.cert else CA, problem) from None


def _read_identity(
    paths: TlsPaths, files: Files, now_s: float, uses: Sequence[x509.ObjectIdentifier]
) -> Identity:
    found = _read_authorities(CA, paths.ca, files, now_s)
    authorities = signers = _valid(found, now_s)
    everyone = authorities
    if paths.peer_ca:
        of_peers = _read_authorities(PEER_CA, paths.peer_ca, files, now_s)
        signers = _valid(of_peers, now_s)
        found, everyone = [*found, *of_peers], [*authorities, *signers]
    chain: list[x509.Certificate] = []
    key = b""
    if paths.cert:
        chain = _certificates(CERT, paths.cert, _read(CERT, paths.cert, files))
        key = _read(KEY, paths.key, files, is_secret=True)
        _check_key(paths, key, chain[0])
        _check_dates(CERT, paths.cert, chain, now_s)
        _check_uses(paths.cert, chain[0], uses)
        if SERVER in uses:
            # Nodes trust each other by the authorities that they name; those of a client may not be theirs.
            _check_signed(paths, chain, everyone)
    return Identity(
        chain=_pem(chain),
        key=key,
        authorities=_pem(everyone),
        peer_authorities=_pem(signers),
        names=names_of(chain[0]) if chain else (),
        expires_at_s=min((_end_s(each) for each in chain), default=float("inf")),
        authorities_expire_at_s=min(_end_s(each) for each in everyone),
        changes_at_s=min(
            moment for each in found for moment in (_begin_s(each), _end_s(each)) if moment > now_s
        ),
    )


def names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """Return the names of a certificate: URI:, DNS:, EMAIL: and IP: of the alternative names, then OU: and CN: of the subject.

    Raises one of UNREADABLE.
    """
    names: list[str] = []
    with contextlib.suppress(x509.ExtensionNotFound):
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        for name in extension.value:
            kind = KINDS.get(type(name))
            if kind is not None:
                names.append(f"{kind}:{name.value}")
    for kind, oid in (("OU", NameOID.ORGANIZATIONAL_UNIT_NAME), ("CN", NameOID.COMMON_NAME)):
        names += [
            f"{kind}:{_text(each)}" for each in certificate.subject.get_attributes_for_oid(oid)
        ]
    return tuple(names)


KINDS: dict[type, str] = {
    x509.UniformResourceIdentifier: "URI",
    x509.DNSName: "DNS",
    x509.RFC822Name: "EMAIL",
    x509.IPAddress: "IP",
}


def names_in(der: bytes | None) -> tuple[str, ...]:
    """Return the names of a certificate as it travels; () if there is none, or it cannot be read."""
    return _names_in(der, x509.load_der_x509_certificate)


def names_in_pem(pem: bytes) -> tuple[str, ...]:
    """As `names_in`, for a certificate in PEM."""
    return _names_in(pem, x509.load_pem_x509_certificate)


def _names_in(data: bytes | None, load: Callable[[bytes], x509.Certificate]) -> tuple[str, ...]:
    if not data:
        return ()
    try:
        return names_of(load(data))
    except UNREADABLE:
        return ()


def _text(attribute: x509.NameAttribute[str | bytes]) -> str:
    return attribute.value if isinstance(attribute.value, str) else ""


# --- Reading ---


def _read(flag: str, path: str, files: Files, *, is_secret: bool = False) -> bytes:
    content = read_whole(files, flag, path)
    if is_secret and content.is_world_readable:
        problem = f"{path} can be read by every user of this machine: chmod 600 (or 640) {path}"
        raise ConfigurationInvalid(flag, problem)
    return content.data


def _certificates(flag: str, path: str, data: bytes) -> list[x509.Certificate]:
    if b"-----BEGIN CERTIFICATE-----" not in data:
        problem = f"{path} holds no certificate in PEM (-----BEGIN CERTIFICATE-----)"
        if b"PRIVATE KEY-----" in data:
            problem = f"{path} holds a key and no certificate: exchange {CERT} and {KEY}"
        raise ConfigurationInvalid(flag, problem)
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError:
        problem = f"{path} holds a certificate that cannot be read: it is damaged, or cut off"
        raise ConfigurationInvalid(flag, problem) from None


def _read_authorities(flag: str, path: str, files: Files, now_s: float) -> list[x509.Certificate]:
    """Return the authorities in a file, of which one at least is valid."""
    found = _certificates(flag, path, _read(flag, path, files))
    authorities = [each for each in found if _is_authority(each)]
    if not authorities:
        problem = f"{path} holds no certificate of an authority (CA:TRUE): name that of who signs the others"
        raise ConfigurationInvalid(flag, problem)
    if not _valid(authorities, now_s):
        _check_dates(flag, path, authorities[:1], now_s)
    return authorities


def _valid(authorities: Iterable[x509.Certificate], now_s: float) -> list[x509.Certificate]:
    return [each for each in authorities if _begin_s(each) <= now_s < _end_s(each)]


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        found = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except x509.ExtensionNotFound:
        return False
    return found.value.ca


# --- Checking ---


def _check_key(paths: TlsPaths, data: bytes, certificate: x509.Certificate) -> None:
    if b"PRIVATE KEY-----" not in data:
        problem = f"{paths.key} holds no private key in PEM (-----BEGIN PRIVATE KEY-----)"
        if b"-----BEGIN CERTIFICATE-----" in data:
            problem = f"{paths.key} holds a certificate and no key: exchange {CERT} and {KEY}"
        raise ConfigurationInvalid(KEY, problem)
    try:
        key = load_pem_private_key(data, None)
        own, named = (
            each.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            for each in (key.public_key(), certificate.public_key())
        )
    except TypeError:
        problem = (
            f"{paths.key} is encrypted: a node cannot ask for the pass phrase, give it one without"
        )
        raise ConfigurationInvalid(KEY, problem) from None
    except (ValueError, UnsupportedAlgorithm):
        problem = f"{paths.key} holds a key that cannot be read: it is damaged, or cut off"
        raise ConfigurationInvalid(KEY, problem) from None
    if own != named:
        problem = f"{paths.key} is not the key of the certificate in {paths.cert} ({CERT})"
        raise ConfigurationInvalid(KEY, problem)
    is_known = isinstance(key, rsa.RSAPrivateKey) or (
        isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in CURVES
    )
    if not is_known:
        problem = (
            f"{paths.key} is a key of a kind that gRPC does not speak TLS with, so no client could connect: make one of RSA, or of ECDSA "
            "on P-256 or P-384, and a certificate for it"
        )
        raise ConfigurationInvalid(KEY, problem)


def _check_dates(
    flag: str, path: str, certificates: Iterable[x509.Certificate], now_s: float
) -> None:
    for each in certificates:
        if now_s >= _end_s(each):
            end = each.not_valid_after_utc.isoformat()
            raise ConfigurationInvalid(
                flag, f"{path} expired at {end}: put a new certificate there"
            )
        if now_s < _begin_s(each):
            begin = each.not_valid_before_utc.isoformat()
            problem = f"{path} is valid only from {begin} on: check the clock of this machine, or put another one there"
            raise ConfigurationInvalid(flag, problem)


def _check_uses(
    path: str, certificate: x509.Certificate, uses: Sequence[x509.ObjectIdentifier]
) -> None:
    extensions = certificate.extensions
    with contextlib.suppress(x509.ExtensionNotFound):
        if not extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature:
            problem = f"{path} is not made for signatures (its key usage says what for), without which there is no TLS 1.3: get one that is"
            raise ConfigurationInvalid(CERT, problem)
    with contextlib.suppress(x509.ExtensionNotFound):
        allowed = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        missing = [USES[each] for each in uses if each not in allowed]
        if missing:
            problem = f"{path} is not made for {' and '.join(missing)} (its extended key usage says what for): get one that is"
            raise ConfigurationInvalid(CERT, problem)


def _check_signed(
    paths: TlsPaths, chain: Sequence[x509.Certificate], authorities: Sequence[x509.Certificate]
) -> None:
    """Raise ConfigurationInvalid unless an authority stands at the end of the chain."""
    current = chain[0]
    for _ in range(CHAIN_LENGTH_MAX):
        if any(each == current or _has_signed(each, current) for each in authorities):
            return
        above = next((each for each in chain[1:] if _has_signed(each, current)), None)
        if above is None or above == current:
            break
        current = above
    flag = f"{CA} or {PEER_CA}" if paths.peer_ca else f"{CA} ({paths.ca})"
    problem = f"{paths.cert} is not signed by an authority of {flag}: nobody that trusts those would trust this process"
    raise ConfigurationInvalid(CERT, problem)


def _has_signed(authority: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _begin_s(certificate: x509.Certificate) -> float:
    return certificate.not_valid_before_utc.timestamp()


def _end_s(certificate: x509.Certificate) -> float:
    return certificate.not_valid_after_utc.timestamp()


def _pem(certificates: Iterable[x509.Certificate]) -> bytes:
    return b"".join(each.public_bytes(Encoding.PEM) for each in certificates)
