"""What a client connects to nodes with certificates with."""

from __future__ import annotations

import grpc

from distlog.errors import ConfigurationInvalid
from distlog.runtime import SystemClock
from distlog.security.certificates import CA, CERT, KEY, TlsPaths
from distlog.security.files import RealFiles
from distlog.security.tls import client_credentials


def tls_credentials(ca: str, cert: str = "", key: str = "") -> grpc.ChannelCredentials:
    """Read certificates, once; return what `Client` takes.

    ca: the file with the authorities that sign the nodes.  cert, key: this client's; without them it shows none, and a node of distlog
    refuses it.  Raises ConfigurationInvalid, which says what is wrong with which file.
    """
    if not ca:
        raise ConfigurationInvalid(
            CA, "is required with a certificate: the authorities that sign the nodes"
        )
    if bool(cert) != bool(key):
        flag, other = (KEY, CERT) if cert else (CERT, KEY)
        raise ConfigurationInvalid(flag, f"is required with {other}: a certificate and its key")
    now_s = SystemClock().wall_ms() / 1000
    return client_credentials(TlsPaths(cert, key, ca), RealFiles(), now_s)
