"""Files of certificates: what is wrong with each is said in words, with its flag and path, and never with what it holds."""

from __future__ import annotations

import base64
import contextlib
import os
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from distlog.errors import ConfigurationInvalid
from distlog.security.certificates import CLIENT, SERVER, TlsPaths, names_in, read_identity
from distlog.security.files import FILE_SIZE_MAX, RealFiles
from tests.security.authorities import Pki

Change = Callable[[Pki], TlsPaths]


def read(paths: TlsPaths) -> None:
    read_identity(paths, RealFiles(), time.time(), (SERVER, CLIENT))


def changed(suffix: str, change: Callable[[Path], object]) -> Change:
    """Return a change to one file of a node that is fine otherwise."""

    def apply(pki: Pki) -> TlsPaths:
        paths = pki.node("n1")
        change(pki.directory / f"n1{suffix}")
        return paths

    return apply


def encrypted(path: Path) -> None:
    key = load_pem_private_key(path.read_bytes(), None)
    how = BestAvailableEncryption(b"pass phrase")
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how))


def key_of_another(pki: Pki) -> TlsPaths:
    first, second = pki.node("n1"), pki.node("n2")
    return TlsPaths(first.cert, second.key, first.ca)


def exchanged(pki: Pki) -> TlsPaths:
    paths = pki.node("n1")
    return TlsPaths(paths.key, paths.key, paths.ca)


def two_certificates(pki: Pki) -> TlsPaths:
    paths = pki.node("n1")
    return TlsPaths(paths.cert, paths.cert, paths.ca)


def of_another_authority(pki: Pki) -> TlsPaths:
    pki.node("n1")
    return pki.paths("n1", ca=Pki(pki.directory / "other").ca)


def trusts_a_node(pki: Pki) -> TlsPaths:
    return pki.paths("n1", ca=pki.node("n1").cert)


def damaged(path: Path) -> None:
    first, second, *rest = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + second[:9] + b"!!!!" + second[13:] + b"".join(rest))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def no_authority(pki: Pki) -> TlsPaths:
    pki.node("n1")
    return pki.paths("n1", ca="absent.pem")


PROBLEMS: dict[str, tuple[Change, str]] = {
    "no certificate": (changed(".pem", Path.unlink), "--tls-cert: {n1}.pem cannot be read: No such file or directory"),
    "no key": (changed(".key", Path.unlink), "--tls-key: {n1}.key cannot be read: No such file or directory"),
    "no authority": (no_authority, "--tls-ca: absent.pem cannot be read"),
    "a directory": (lambda pki: TlsPaths(str(pki.directory), str(pki.directory), pki.ca), "cannot be read: it is not a file"),
    "an empty path": (lambda pki: TlsPaths("a\0b", "c", pki.ca), "cannot be read: that is no path"),
    "empty certificate": (changed(".pem", lambda path: path.write_bytes(b"")), "--tls-cert: {n1}.pem holds no certificate in PEM"),
    "empty key": (changed(".key", lambda path: path.write_bytes(b"")), "--tls-key: {n1}.key holds no private key in PEM"),
    "not PEM": (changed(".pem", lambda path: path.write_bytes(b"\x30\x82\x01")), "--tls-cert: {n1}.pem holds no certificate in PEM"),
    "damaged certificate": (changed(".pem", damaged), "--tls-cert: {n1}.pem holds a certificate that cannot be read: it is damaged"),
    "damaged key": (changed(".key", damaged), "--tls-key: {n1}.key holds a key that cannot be read: it is damaged"),
    "cut key": (changed(".key", cut), "--tls-key: {n1}.key holds a key that cannot be read"),
    "encrypted key": (changed(".key", encrypted), "--tls-key: {n1}.key is encrypted"),
    "huge": (changed(".pem", lambda path: path.write_bytes(b"x" * (FILE_SIZE_MAX + 1))), "--tls-cert: {n1}.pem is larger than"),
    "key of another": (key_of_another, "--tls-key: {n2}.key is not the key of the certificate in {n1}.pem (--tls-cert)"),
    "exchanged": (exchanged, "--tls-cert: {n1}.key holds a key and no certificate: exchange --tls-cert and --tls-key"),
    "certificate twice": (two_certificates, "--tls-key: {n1}.pem holds a certificate and no key: exchange --tls-cert and --tls-key"),
    "expired": (lambda pki: pki.node("n1", begin_days=-9, days=-1), "--tls-cert: {n1}.pem expired at 20"),
    "not yet valid": (lambda pki: pki.node("n1", begin_days=1, days=2), "--tls-cert: {n1}.pem is valid only from 20"),
    "of a client": (lambda pki: pki.client("n1"), "--tls-cert: {n1}.pem is not made for serverAuth"),
    "another authority": (of_another_authority, "--tls-cert: {n1}.pem is not signed by an authority of --tls-ca"),
    "no authority's": (trusts_a_node, "--tls-ca: {n1}.pem holds no certificate of an authority"),
    "world-readable key": (changed(".key", lambda path: path.chmod(0o644)), "--tls-key: {n1}.key can be read by every user"),
}  # fmt: skip


@pytest.mark.parametrize("name", PROBLEMS)
def test_what_is_wrong_with_a_file_is_said_with_its_flag_and_path(
    name: str, tmp_path: Path
) -> None:
    change, problem = PROBLEMS[name]
    pki = Pki(tmp_path)
    paths = change(pki)
    with pytest.raises(ConfigurationInvalid) as caught:
        read(paths)
    said = str(caught.value)
    assert problem.format(n1=tmp_path / "n1", n2=tmp_path / "n2") in said
    assert "\n" not in said
    for path in tmp_path.glob("*.key"):
        for line in path.read_text("latin-1").splitlines():
            assert len(line) < 10 or line.startswith("-----") or line not in said


def test_an_expired_authority_is_said(tmp_path: Path) -> None:
    pki = Pki(tmp_path, days=-1)
    with pytest.raises(ConfigurationInvalid, match=r"--tls-ca: .*ca\.pem expired at 20"):
        read(pki.node("n1"))


def test_a_key_may_be_read_by_its_group_as_an_orchestrator_puts_it_there(tmp_path: Path) -> None:
    pki = Pki(tmp_path)
    paths = pki.node("n1")
    os.chmod(paths.key, 0o640)
    read(paths)


@pytest.mark.parametrize(
    "key",
    [
        ed25519.Ed25519PrivateKey.generate(),
        ec.generate_private_key(ec.SECP521R1()),
        ec.generate_private_key(ec.SECP256K1()),
    ],
    ids=["Ed25519", "P-521", "secp256k1"],
)
def test_a_key_that_grpc_does_not_speak_with_is_refused(
    key: CertificateIssuerPrivateKeyTypes, tmp_path: Path
) -> None:
    """Nodes speak with each other all the same, and no client with any of them."""
    pki = Pki(tmp_path)
    pki.node("n1")
    with pytest.raises(ConfigurationInvalid, match=r"--tls-key: .*n1\.key is a key of a kind that"):
        read(pki.with_key("n1", key))


def test_a_certificate_that_is_not_for_signatures_is_refused(tmp_path: Path) -> None:
    """TLS 1.3 has no other use for it; gRPC would say nothing but that it cannot listen."""
    pki = Pki(tmp_path)
    pki.node("n1")
    others = dict.fromkeys(("content_commitment", "data_encipherment", "key_agreement"), False)
    usage = x509.KeyUsage(
        digital_signature=False,
        key_encipherment=True,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
        **others,
    )
    key = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(ConfigurationInvalid, match=r"--tls-cert: .*n1\.pem is not made for signat"):
        read(pki.with_key("n1", key, usage))


def test_an_expired_authority_beside_a_valid_one_is_in_nobodys_way(tmp_path: Path) -> None:
    pki, old = Pki(tmp_path), Pki(tmp_path / "old", days=-1)
    both = tmp_path / "both.pem"
    both.write_bytes(Path(old.ca).read_bytes() + Path(pki.ca).read_bytes())
    pki.node("n1")
    identity = read_identity(pki.paths("n1", ca=str(both)), RealFiles(), time.time())
    assert identity.authorities == Path(pki.ca).read_bytes()


def test_the_names_of_a_certificate_are_in_the_order_of_the_certificate(tmp_path: Path) -> None:
    pki = Pki(tmp_path)
    identity = read_identity(pki.node("n1"), RealFiles(), time.time())
    assert identity.names == (
        "URI:distlog://node/n1",
        "DNS:localhost",
        "IP:127.0.0.1",
        "CN:n1",
    )


def test_a_key_is_in_no_representation_of_what_was_read(tmp_path: Path) -> None:
    paths = Pki(tmp_path).node("n1")
    identity = read_identity(paths, RealFiles(), time.time())
    assert "PRIVATE" not in repr(identity)
    assert "PRIVATE" not in repr(RealFiles().read(paths.key))


def test_certificates_of_clients_and_nodes_may_have_authorities_of_their_own(
    tmp_path: Path,
) -> None:
    clients, nodes = Pki(tmp_path / "clients"), Pki(tmp_path / "nodes")
    nodes.node("n1")
    identity = read_identity(
        nodes.paths("n1", ca=clients.ca, peer_ca=nodes.ca), RealFiles(), time.time()
    )
    assert identity.peer_authorities == Path(nodes.ca).read_bytes()
    # Nodes ask each other at the port for clients, too.
    assert identity.authorities == Path(clients.ca).read_bytes() + Path(nodes.ca).read_bytes()


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
@pytest.mark.parametrize("round_number", range(4))
def test_whatever_bytes_a_certificate_has_it_has_names_or_none(
    round_number: int, tmp_path: Path
) -> None:
    paths = Pki(tmp_path).node("n1")
    der = ssl.PEM_cert_to_DER_cert(Path(paths.cert).read_text("ascii"))
    random = Random(round_number)
    for _ in range(1000):
        changed = bytearray(der)
        for _ in range(random.randint(1, 3)):
            changed[random.randrange(len(changed))] = random.randrange(256)
        names = names_in(bytes(changed[: random.choice((len(der), random.randrange(len(der))))]))
        assert all(":" in name for name in names)
    assert names_in(None) == names_in(b"") == ()
    assert names_in(der)[0] == "URI:distlog://node/n1"


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
@pytest.mark.parametrize("round_number", range(2))
def test_whatever_bytes_a_file_has_it_is_taken_or_refused_in_words(
    round_number: int, tmp_path: Path
) -> None:
    pki = Pki(tmp_path)
    paths = pki.node("n1")
    random = Random(round_number)
    whole = {path: Path(path).read_bytes() for path in (paths.cert, paths.key, paths.ca)}
    for _ in range(300):
        path = random.choice(list(whole))
        header, *body, footer = whole[path].splitlines(keepends=True)
        changed = bytearray(base64.b64decode(b"".join(body)))
        for _ in range(random.randint(1, 3)):
            changed[random.randrange(len(changed))] = random.randrange(256)
        Path(path).write_bytes(header + base64.encodebytes(changed) + footer)
        with contextlib.suppress(ConfigurationInvalid):
            read(paths)
        Path(path).write_bytes(whole[path])
    read(paths)
