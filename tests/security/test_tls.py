"""The certificates of a process: renewed while it runs, kept when the new ones are bad, and what is said before they end."""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from distlog.errors import ConfigurationInvalid
from distlog.security.files import RealFiles
from distlog.security.issue import Authority
from distlog.security.peer_name import peer_name_problem
from distlog.security.tls import WARNING_INTERVAL_S, WARNING_S, Credentials
from tests.security.authorities import NODE_NAME, Pki

DAY_S = 86400.0


class Clock:
    """The machine's, and some days."""

    def __init__(self) -> None:
        self.days = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.days * DAY_S

    def wall_ms(self) -> int:
        return int(1000 * (time.time() + self.days * DAY_S))


def made(pki: Pki, days: float = 30) -> tuple[Credentials, Clock]:
    clock = Clock()
    return Credentials(pki.node("n1", days=days), RealFiles(), clock), clock


def test_new_files_are_read_when_two_looks_have_found_them_the_same(tmp_path: Path) -> None:
    pki = Pki(tmp_path)
    credentials, _ = made(pki)
    before = credentials.identity
    credentials.look()
    assert credentials.identity is before
    pki.node("n1", days=60)
    credentials.look()
    assert credentials.identity is before, "who writes may not be through"
    credentials.look()
    assert credentials.identity.chain == Path(f"{tmp_path}/n1.pem").read_bytes()
    assert credentials.seconds_until_expiry() == pytest.approx(60 * DAY_S, abs=60)
    assert credentials.renewed_count == 1


def test_a_certificate_whose_key_comes_later_is_taken_when_that_is_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pki = Pki(tmp_path)
    credentials, _ = made(pki)
    old_key = (tmp_path / "n1.key").read_bytes()
    pki.node("n1", days=60)
    new_key = (tmp_path / "n1.key").read_bytes()
    (tmp_path / "n1.key").write_bytes(old_key)
    credentials.look()
    (tmp_path / "n1.key").write_bytes(new_key)
    credentials.look()
    credentials.look()
    assert credentials.renewed_count == 1
    assert [each for each in caplog.records if each.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("bad", ["gone", "empty", "expired", "other key", "other authority"])
def test_a_bad_new_file_changes_nothing_and_is_said_once(
    bad: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pki = Pki(tmp_path / "pki")
    credentials, _ = made(pki)
    before, context = credentials.identity, credentials.peer_context(is_dialling=True)
    certificate = tmp_path / "pki" / "n1.pem"
    if bad == "gone":
        certificate.unlink()
    elif bad == "empty":
        certificate.write_bytes(b"")
    elif bad == "expired":
        pki.node("n1", begin_days=-9, days=-1)
    elif bad == "other key":
        pki.node("n2")
        (tmp_path / "pki" / "n2.key").replace(tmp_path / "pki" / "n1.key")
    else:
        (tmp_path / "pki" / "ca.pem").write_bytes(Path(Pki(tmp_path / "other").ca).read_bytes())
    for _ in range(5):
        credentials.look()
    assert credentials.identity is before
    assert credentials.peer_context(is_dialling=True) is context
    (said,) = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    assert "the certificates stay as they were" in said
    assert "--tls-" in said
    assert (credentials.refused_count, credentials.renewed_count) == (1, 0)
    Path(pki.ca).write_bytes(pki.authority.issued.certificate)
    pki.node("n1", days=60)
    credentials.look()
    credentials.look()
    assert credentials.renewed_count == 1


def test_the_certificate_of_another_node_is_not_taken_in_the_place_of_ones_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With it this node would speak to nobody any more: it starts with none like that, and takes none over."""
    pki = Pki(tmp_path)

    def node_problem(names: Sequence[str]) -> str | None:
        return peer_name_problem(NODE_NAME, names, "n1")

    credentials = Credentials(pki.node("n1"), RealFiles(), Clock(), node_problem)
    before = credentials.identity
    pki.node("n2", file="n1")
    assert not credentials.read_again()
    assert credentials.identity is before
    assert "this node would be refused by the others" in caplog.text
    assert "distlog://node/n2" in caplog.text
    with pytest.raises(ConfigurationInvalid, match=r"--tls-cert: with .* would be refused"):
        Credentials(pki.paths("n1"), RealFiles(), Clock(), node_problem)
    pki.node("n1", days=60)
    assert credentials.read_again()


def test_a_key_whose_mode_was_put_right_is_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says `chmod 600`, and nobody should have to do more."""
    pki = Pki(tmp_path)
    credentials, _ = made(pki)
    key = Path(pki.node("n1", days=60).key)
    key.chmod(0o644)
    credentials.look()
    credentials.look()
    assert credentials.refused_count == 1
    assert "chmod 600" in caplog.text
    key.chmod(0o600)
    credentials.look()
    credentials.look()
    assert credentials.renewed_count == 1


def coming(pki: Pki, begin_days: float) -> bytes:
    """Return the certificate of an authority that is valid from so many days on."""
    begin = pki.now + timedelta(days=begin_days)
    return Authority.new("coming", begin, begin + timedelta(days=90)).issued.certificate


def test_an_authority_is_trusted_from_the_day_when_it_is_valid(tmp_path: Path) -> None:
    """Nobody writes the file again on that day."""
    pki = Pki(tmp_path, days=20)
    first, next_one = Path(pki.ca).read_bytes(), coming(pki, begin_days=10)
    Path(pki.ca).write_bytes(first + next_one)
    credentials, clock = made(pki, days=20)
    assert credentials.identity.authorities == first
    clock.days = 10
    credentials.look()
    assert credentials.identity.authorities == first + next_one
    assert credentials.renewed_count == 1
    credentials.look()
    assert credentials.renewed_count == 1, "nothing else is due"


def test_a_certificate_that_is_not_valid_yet_is_taken_when_it_is_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pki = Pki(tmp_path)
    credentials, clock = made(pki)
    pki.node("n1", begin_days=1, days=60)
    for days in (0, 0, 0.25, 0.5, 0.75):
        clock.days = days
        credentials.look()
    assert len(warnings(caplog)) == credentials.refused_count == 1
    clock.days = 1
    credentials.look()
    assert credentials.renewed_count == 1


def test_who_asks_for_it_has_the_files_read_at_once(tmp_path: Path) -> None:
    pki = Pki(tmp_path)
    credentials, _ = made(pki)
    pki.node("n1", days=60)
    assert credentials.read_again()
    assert credentials.renewed_count == 1
    assert credentials.read_again(), "nothing new is no problem"
    assert credentials.renewed_count == 1


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    said = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    caplog.clear()
    return said


def test_the_end_of_a_certificate_is_said_from_two_weeks_before_once_a_day(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    credentials, clock = made(Pki(tmp_path), days=30)
    credentials.warn()
    assert warnings(caplog) == []
    clock.days = 30 - WARNING_S / DAY_S + 0.01
    credentials.warn()
    credentials.warn()
    (said,) = warnings(caplog)
    assert "a certificate expires soon" in said
    assert f"path={tmp_path}/n1.pem days=14.0" in said
    clock.days += WARNING_INTERVAL_S / DAY_S
    credentials.warn()
    assert len(warnings(caplog)) == 1
    clock.days = 31
    credentials.warn()
    (said,) = warnings(caplog)
    assert "has expired, and every new connection is refused" in said
    assert credentials.seconds_until_expiry() == pytest.approx(-DAY_S, abs=60)


def test_the_end_of_the_authority_is_said_as_well(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pki = Pki(tmp_path, days=20)
    clock = Clock()
    # No certificate outlives its authority, so this one ends before.
    credentials = Credentials(pki.node("n1", days=19), RealFiles(), clock)
    assert credentials.expires_at_s[1] == pytest.approx(time.time() + 20 * DAY_S, abs=60)
    other = Pki(tmp_path / "other", days=10)
    both = tmp_path / "both.pem"
    both.write_bytes(Path(pki.ca).read_bytes() + Path(other.ca).read_bytes())
    credentials = Credentials(pki.paths("n1", ca=str(both)), RealFiles(), clock)
    credentials.warn()
    (said,) = warnings(caplog)
    assert f"path={both} days=10.0" in said


def test_a_renewed_certificate_ends_the_warnings(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pki = Pki(tmp_path)
    credentials, _ = made(pki, days=3)
    credentials.warn()
    assert len(warnings(caplog)) == 1
    pki.node("n1", days=60)
    credentials.read_again()
    credentials.warn()
    assert warnings(caplog) == []


def test_every_context_wants_tls_1_3_and_holds_who_shows_a_certificate_to_it(
    tmp_path: Path,
) -> None:
    credentials, _ = made(Pki(tmp_path))
    contexts = {
        credentials.peer_context(is_dialling=True): ssl.CERT_REQUIRED,
        credentials.peer_context(is_dialling=False): ssl.CERT_REQUIRED,
        credentials.http_context(): ssl.CERT_OPTIONAL,
    }
    for context, verify_mode in contexts.items():
        assert context.verify_mode is verify_mode
        assert context.minimum_version is ssl.TLSVersion.TLSv1_3
        if context.protocol is ssl.PROTOCOL_TLS_SERVER:
            assert context.num_tickets == 0, "who resumes a session shows no certificate"


def test_a_node_does_not_start_with_bad_certificates(tmp_path: Path) -> None:
    pki = Pki(tmp_path)
    paths = pki.node("n1")
    Path(paths.key).unlink()
    with pytest.raises(ConfigurationInvalid):
        pki.credentials(paths)
