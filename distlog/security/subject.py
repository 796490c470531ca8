"""The subject of a call: the name that the client's certificate gives it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

# Who shows no certificate, which is only possible where none are asked for.
ANONYMOUS = ""
SUBJECT_LENGTH_MAX = 255
# As gRPC names them: every alternative name in the order of the certificate, those of them that are IP addresses, the common name.
ALTERNATIVE_NAMES, ADDRESSES = "x509_subject_alternative_name", "peer_ip"
COMMON_NAME = "x509_common_name"


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


def is_subject(name: str) -> bool:
    """Tell whether a name can be in a log, a policy and a metric: 1 to 255 printable characters, no blank among them."""
    return (
        0 < len(name) <= SUBJECT_LENGTH_MAX
        and name.isprintable()
        and not any(map(str.isspace, name))
    )
