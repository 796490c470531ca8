"""`distlog certs`: one command for everything that a cluster needs to try out TLS, and nothing that it overwrites by mistake."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from cryptography import x509

from distlog.cli.main import main
from distlog.security.certificates import CLIENT, SERVER, TlsPaths, names_of, read_identity
from distlog.security.files import RealFiles

DAY_S = 86400.0


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def paths(directory: Path, name: str) -> TlsPaths:
    stem = directory / name
    return TlsPaths(f"{stem}.pem", f"{stem}.key", str(directory / "ca.pem"))


def certificate(directory: Path, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((directory / f"{name}.pem").read_bytes())


def test_one_command_makes_an_authority_and_certificates_of_nodes_a_client_and_a_probe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "new" / "pki"
    assert main(["certs", str(directory), "--days", "30"]) == 0
    names = ["ca", "n1", "n2", "n3", "admin", "probe"]
    assert sorted(files(directory)) == sorted(
        f"{name}.{suffix}" for name in names for suffix in ("pem", "key")
    )
    for name in ("n1", "n2", "n3"):
        identity = read_identity(paths(directory, name), RealFiles(), time.time(), (SERVER, CLIENT))
        assert identity.names[0] == f"URI:distlog://node/{name}"
        assert {"DNS:localhost", "IP:127.0.0.1"} <= set(identity.names)
        assert identity.expires_at_s - time.time() == pytest.approx(30 * DAY_S, abs=60)
    for name in ("admin", "probe"):
        read_identity(paths(directory, name), RealFiles(), time.time(), (CLIENT,))
        assert names_of(certificate(directory, name)) == (f"DNS:{name}", f"CN:{name}")
    said = capsys.readouterr().out
    assert f"distlog serve --node-id n1 --tls-ca {directory}/ca.pem" in said
    assert f"distlog cluster status --tls-ca {directory}/ca.pem" in said
    assert (
        f"export DISTLOG_TLS_CA={directory}/ca.pem DISTLOG_TLS_CERT={directory}/admin.pem" in said
    )


def test_keys_are_for_their_owner_alone(tmp_path: Path) -> None:
    assert main(["certs", str(tmp_path)]) == 0
    for path in tmp_path.glob("*.key"):
        assert path.stat().st_mode & 0o777 == 0o600, path.name
    assert main(["certs", str(tmp_path), "--force"]) == 0
    for path in tmp_path.glob("*.key"):
        assert path.stat().st_mode & 0o777 == 0o600, path.name


def test_others_may_write_no_file_of_theirs_beside_them_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        assert main(["certs", str(tmp_path / "pki")]) == 0
    finally:
        os.umask(before)
    for path in (tmp_path / "pki", *(tmp_path / "pki").iterdir()):
        assert path.stat().st_mode & 0o022 == 0, path.name


def test_nothing_that_is_there_is_overwritten_without_being_told_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["certs", str(tmp_path)]) == 0
    before = files(tmp_path)
    assert main(["certs", str(tmp_path), "--nodes", "n4,n2"]) == 2
    assert "n2.pem: is there already: --force" in capsys.readouterr().err
    assert files(tmp_path) == before


def test_others_are_added_by_the_same_authority(tmp_path: Path) -> None:
    assert main(["certs", str(tmp_path)]) == 0
    before = files(tmp_path)
    assert main(["certs", str(tmp_path), "--nodes", "", "--clients", "bob,eve@example.org"]) == 0
    after = files(tmp_path)
    assert {name: after[name] for name in before} == before
    for name in ("bob", "eve@example.org"):
        read_identity(paths(tmp_path, name), RealFiles(), time.time(), (CLIENT,))
    assert names_of(certificate(tmp_path, "eve@example.org"))[0] == "EMAIL:eve@example.org"


def test_force_renews_certificates_and_keeps_the_authority(tmp_path: Path) -> None:
    assert main(["certs", str(tmp_path)]) == 0
    before = files(tmp_path)
    assert main(["certs", str(tmp_path), "--force", "--nodes", "n1", "--clients", ""]) == 0
    after = files(tmp_path)
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"n1.pem", "n1.key", "probe.pem", "probe.key"}


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--nodes", "n1,../n2"], "--nodes: must be 1 to 63 of A-Z a-z"),
        (["--nodes", "a/b"], "--nodes: must be 1 to 63"),
        (["--nodes", "n1@host"], "--nodes: must be 1 to 63"),
        (["--clients", "al ice"], "--clients: must be 1 to 63"),
        (
            ["--clients", "alice,bob@"],
            "--clients: must be names, or addresses of e-mail, not 'bob@'",
        ),
        (["--clients", "n1"], "n1 would be made twice"),
        (["--clients", "ca"], "ca would be made twice"),
        (["--nodes", "probe"], "probe would be made twice"),
        (["--hosts", "h\u00f6st"], "--hosts: must be names or addresses"),
        (["--days", "0"], "--days: must be a number from 1 to"),
        (["--days", "never"], "--days: must be a number from 1 to"),
    ],
)
def test_a_mistake_is_said_before_anything_is_made(
    arguments: list[str], problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["certs", str(tmp_path / "pki"), *arguments]) == 2
    assert problem in capsys.readouterr().err
    assert not (tmp_path / "pki").exists()


@pytest.mark.parametrize("half", ["ca.pem", "ca.key"])
def test_half_an_authority_is_no_reason_to_make_another(
    half: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["certs", str(tmp_path)]) == 0
    (tmp_path / half).unlink()
    assert main(["certs", str(tmp_path), "--force"]) == 2
    assert "cannot be used: No such file or directory; take another directory" in (
        capsys.readouterr().err
    )


def test_an_authority_of_another_kind_is_not_touched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["certs", str(tmp_path)]) == 0
    (tmp_path / "ca.key").write_bytes(b"something else")
    assert main(["certs", str(tmp_path), "--force"]) == 2
    assert "it is no authority that distlog has made" in capsys.readouterr().err
