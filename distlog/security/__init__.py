"""Who somebody is, whether a connection can be trusted, and who may do what.

    certificates   files of certificates and keys, read and checked, and what is wrong with them in words
    tls            the certificates of this process, read again when they change, as contexts for each kind of port
    network        connections between nodes over TLS
    peer_name      what a certificate must say for its holder to be a node
    ciphers        TLS 1.3 alone for gRPC
    subject        the name that a client's certificate gives it
    issue          certificates for trying things out: `distlog certs`
    policy         the rules of who may do what, as values: they are replicated, or stand in a file (policy_file, policy_rows)
    deciding       Casbin, asked by them; authorizer: the policy in force, and the answers that it gave
    audit          what was denied or administered, a line each; rotated_file: where that goes

Invariants: TLS 1.3 or nothing; both ends show a certificate; no text, log or error holds anything of a key; files that turn
bad while a node runs change nothing but the log.  With one rule everything is denied that no rule allows; what cannot be decided is
denied; nothing of what a request holds, beyond a topic's name, gets into the audit log.

Deliberately absent: passwords, tokens, revocation lists (certificates that live shortly take their place).
"""
