"""Who somebody is, and whether a connection can be trusted.

    certificates   files of certificates and keys, read and checked, and what is wrong with them in words
    tls            the certificates of this process, read again when they change, as contexts for each kind of port
    network        connections between nodes over TLS
    peer_name      what a certificate must say for its holder to be a node
    ciphers        TLS 1.3 alone for gRPC
    subject        the name that a client's certificate gives it
    issue          certificates for trying things out: `distlog certs`

Invariants: TLS 1.3 or nothing; both ends show a certificate; no text, log or error holds anything of a key; files that turn
bad while a node runs change nothing but the log.

Deliberately absent: passwords, tokens, revocation lists (certificates that live shortly take their place).
"""
