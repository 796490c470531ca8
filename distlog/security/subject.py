"""The subject of a call: the name that the client's certificate gives it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

# Who shows no certificate, which is only possible where none are asked for.
ANONYMOUS = ""
SUBJECT_LENGTH_MAX = 255
# As gRPC names them: every alternative name in the order of the certificate, those of them that are IP addresses, the common name.
ALTERNATIVE_NAMES, ADDRESSES = "x509_subject_alternative_name", "peer_ip"
COMMON_NAME = "x509_common_name"
CERTIFICATE = "x509_pem_cert"
# What no name holds: controls, blanks, what changes the direction or the form of a line, and what is no character.  Written down, since
# rules are part of the replicated format, and Pythons of one cluster may know different versions of Unicode.
FORBIDDEN = (
    # Controls, and blanks.
    r"\x00-\x20\x7f-\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
    # Characters of format.
    r"\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff"
    r"\ufff9-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0001\U000e0020-\U000e007f"
    # Halves of characters, those of private use, and those that never will be any.
    r"\ud800-\uf8ff\ufdd0-\ufdef\ufffe\uffff\U000f0000-\U0010ffff"
    + "".join(rf"\U{plane:04x}fffe\U{plane:04x}ffff" for plane in range(1, 15))
)
NAME = re.compile(f"[^{FORBIDDEN}]{{1,{SUBJECT_LENGTH_MAX}}}")


def subject_of(auth_context: Mapping[str, Sequence[bytes]]) -> str:
    """Return who calls: the first alternative name (DNS, URI or e-mail) of the certificate, or else its common name.

    auth_context: what gRPC's `context.auth_context()` returns.  Returns "" for a call without a certificate, and for a name that is
    no subject (`is_subject`): nobody can be given a right under it.
    """
    addresses = auth_context.get(ADDRESSES, ())
    names = [each for each in auth_context.get(ALTERNATIVE_NAMES, ()) if each not in addresses]
    names = names or list(auth_context.get(COMMON_NAME, ()))
    try:
        name = names[0].decode() if names else ANONYMOUS
    except UnicodeDecodeError:
        return ANONYMOUS
    return name if is_subject(name) else ANONYMOUS


def certificate_of(auth_context: Mapping[str, Sequence[bytes]]) -> bytes:
    """Return the certificate of who calls, in PEM; b"" if there is none."""
    return next(iter(auth_context.get(CERTIFICATE, ())), b"")


def is_subject(name: str) -> bool:
    """Tell whether a name can be in a log, a policy and a metric: 1 to 255 printable characters, no blank among them."""
    return NAME.fullmatch(name) is not None
