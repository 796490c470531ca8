"""The health check of the image: exit status 0 if the node beside it is ready, as its /readyz says, and 1 with the reason if not.

It shows no certificate and asks for none: whoever answers here is that node.  So it does not matter which hosts a certificate names,
and it needs no right.
"""

from __future__ import annotations

import http.client
import os
import ssl
import sys
from collections.abc import Callable

DEFAULT = "127.0.0.1:8404"
# Of each of two attempts; the image gives them 10 s.
TIMEOUT_S = 4.0
# What is listened on -> where that is reached from here.
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
# A node without certificates does not understand a handshake, and answers in clear or hangs up.
NOT_TLS = (ssl.SSLError, ConnectionResetError, http.client.BadStatusLine)


def main() -> int:
    host, _, port = os.environ.get("DISTLOG_HTTP_LISTEN", DEFAULT).rpartition(":")
    host = host.strip("[]")
    try:
        is_ready, words = ask(EVERYWHERE.get(host, host), int(port))
    except (OSError, ValueError, http.client.HTTPException) as error:
        is_ready, words = False, f"it does not answer: {error}"
    print(words)
    return 0 if is_ready else 1


def ask(host: str, port: int) -> tuple[bool, str]:
    """Return whether the node is ready, and what it says.  Raises OSError, HTTPException."""
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    try:
        return get(
            lambda: http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=trusting)
        )
    except NOT_TLS:
        return get(lambda: http.client.HTTPConnection(host, port, timeout=TIMEOUT_S))


def get(connect: Callable[[], http.client.HTTPConnection]) -> tuple[bool, str]:
    connection = connect()
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        return answer.status == 200, answer.read().decode("utf-8", "replace").strip()
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
