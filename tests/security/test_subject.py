"""Who calls, from what gRPC says of the client's certificate."""

from __future__ import annotations

import sys
from unicodedata import ucd_3_2_0

import pytest

from distlog.security.subject import ANONYMOUS, SUBJECT_LENGTH_MAX, is_subject, subject_of


@pytest.mark.parametrize(
    ("names", "common_name", "subject"),
    [
        ([b"alice.example", b"bob.example"], b"carol", "alice.example"),
        ([b"spiffe://example/alice"], b"carol", "spiffe://example/alice"),
        ([b"alice@example.org"], b"carol", "alice@example.org"),
        ([], b"carol", "carol"),
        ([b"10.0.0.1", b"alice.example"], b"carol", "alice.example"),
        ([b"10.0.0.1"], b"carol", "carol"),
        (["\u00e9ve".encode()], b"carol", "\u00e9ve"),
    ],
    ids=["dns", "uri", "mail", "common name", "address first", "address only", "accents"],
)
def test_the_subject_is_the_first_alternative_name_or_else_the_common_name(
    names: list[bytes], common_name: bytes, subject: str
) -> None:
    context = {
        "x509_common_name": [common_name],
        "x509_subject_alternative_name": names,
        "peer_ip": [b"10.0.0.1"],
    }
    assert subject_of(context) == subject


def test_a_call_without_a_certificate_is_anonymous() -> None:
    assert subject_of({}) == ANONYMOUS
    assert subject_of({"transport_security_type": [b"ssl"]}) == ANONYMOUS


@pytest.mark.parametrize(
    "name",
    [b"", b"alice bob", b"alice\n", b"alice\x00", b"\xff", b"a" * (SUBJECT_LENGTH_MAX + 1)],
    ids=["empty", "blank", "line break", "zero", "not UTF-8", "long"],
)
def test_a_name_that_no_policy_can_hold_gives_no_subject(name: bytes) -> None:
    context = {"x509_common_name": [b"carol"], "x509_subject_alternative_name": [name]}
    assert subject_of(context) == ANONYMOUS


def test_a_name_holds_what_can_be_printed_and_nothing_that_changes_a_line() -> None:
    """Whatever version of Unicode this Python knows: what is no character yet may be one for another."""
    for character in map(chr, range(sys.maxunicode + 1)):
        # Controls, formats, surrogates, private use, separators: as they have been for long.
        if ucd_3_2_0.category(character) in ("Cc", "Cf", "Cs", "Co", "Zs", "Zl", "Zp"):
            assert not is_subject(character), ascii(character)
        if character.isprintable() and not character.isspace():
            assert is_subject(character), ascii(character)
    assert not any(map(is_subject, ("\ufdd0", "\uffff", "\U0001fffe", "\U000efffe", "\U0010ffff")))
