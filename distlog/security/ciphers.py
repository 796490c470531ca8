"""TLS 1.3 alone for gRPC, which takes 1.2 as well, and in Python has no word against it."""

from __future__ import annotations

# A variable that gRPC reads once, when it is loaded: the ciphers of TLS 1.2.  This one needs a secret that both ends know beforehand,
# which gRPC never has; so only 1.3, whose ciphers are others, is left.
CIPHERS_VARIABLE, NO_CIPHER = "GRPC_SSL_CIPHER_SUITES", "ECDHE-PSK-CHACHA20-POLY1305"
