"""The certificates of a process, read again when their files change, as what each kind of port is opened with.

    files -> Identity -> contexts for peers and HTTP; credentials for gRPC, which asks for newer ones at every connection

A connection keeps what it began with; the next one has the new certificates.  Files that turn bad change nothing: what was
there before stays, and the log says so until they are good again.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from cryptography.x509 import ObjectIdentifier

from distlog.errors import ConfigurationInvalid
from distlog.runtime import Clock
from distlog.security.certificates import (
    CERT,
    CLIENT,
    SERVER,
    Identity,
    TlsPaths,
    read_identity,
)
from distlog.security.files import Files, Stamp

logger = logging.getLogger(__name__)

# Between two looks at the files.  A change is read when two looks in a row have found the same: certificate and key are two
# files, and who renews them writes one after the other.
LOOK_INTERVAL_S = 2.0
# Files that are no good are tried again after so long: their day may come, or a disk have been away.
RETRY_INTERVAL_S = 60.0
# From so long before the end on, a certificate that ends is said, once in so many seconds.
WARNING_S = 14 * 86400.0
WARNING_INTERVAL_S = 86400.0


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What was read at one time.  Never changed, since gRPC's threads look at it."""

    identity: Identity
    # Of the end that was dialled, and of the one that dialled.
    peer_listening: ssl.SSLContext
    peer_dialling: ssl.SSLContext
    # Of the port for monitoring.
    http: ssl.SSLContext


class Credentials:
    """The certificates of a node."""

    def __init__(
        self,
        paths: TlsPaths,
        files: Files,
        clock: Clock,
        node_problem: Callable[[Sequence[str]], str | None] = lambda names: None,
    ) -> None:
        """Read the files.  Raises ConfigurationInvalid, which says what is wrong with which.

        node_problem(names): why others would take who shows a certificate with these names for no node, or another one.
        """
        self._node_problem = node_problem
        self._paths = paths
        self._files = files
        self._clock = clock
        self._stamps = self._look()
        self._loaded = self._read()
        # What the last look found.
        self._seen = self._stamps
        # When they are read again although they are the same, and what was wrong with them last; "": nothing.
        self._due_at_s = self.identity.changes_at_s
        self._problem = ""
        self._warned_at_s: float | None = None
        # How often other files took the place of those before, and how often they could not.
        self.renewed_count = 0
        self.refused_count = 0

    # --- Now and then ---

    async def watch(self) -> None:
        """Look at the files until this task is cancelled."""
        while True:
            self.warn()
            await asyncio.sleep(LOOK_INTERVAL_S)
            self.look()

    def look(self) -> None:
        """Read the files if they are others than those that were read, and the same as at the last look; or if it is time to."""
        found = self._look()
        is_settled, self._seen = found == self._seen, found
        if is_settled and found != self._stamps:
            self.read_again()
        elif is_settled and self._now_s() >= self._due_at_s:
            self._read_again(is_told=True)

    def read_again(self) -> bool:
        """Read the files now; tell whether they are good.  If not, the certificates stay as they were, and the log says why."""
        return self._read_again(is_told=False)

    def _read_again(self, *, is_told: bool) -> bool:
        """is_told: the same problem as before is not worth a line."""
        stamps = self._look()
        self._stamps = self._seen = stamps
        try:
            loaded = self._read()
        except ConfigurationInvalid as error:
            self._refused(str(error), is_told=is_told)
            return False
        self._problem = ""
        self._due_at_s = loaded.identity.changes_at_s
        if loaded.identity != self._loaded.identity:
            self.renewed_count += 1
            self._warned_at_s = None
            self._loaded = loaded
            logger.info(
                "certificates renewed names=%s valid_s=%d",
                ",".join(loaded.identity.names),
                self.seconds_until_expiry(),
            )
        return True

    def _refused(self, problem: str, *, is_told: bool) -> None:
        self._due_at_s = self._now_s() + RETRY_INTERVAL_S
        if is_told and problem == self._problem:
            return
        self._problem = problem
        self.refused_count += 1
        logger.error(
            "the certificates stay as they were, since the new ones are not good: mend them problem=%s valid_s=%d",
            problem,
            self.seconds_until_expiry(),
        )

    def warn(self) -> None:
        """Say, not more than once a day, that a certificate ends soon, or has ended."""
        identity, now_s = self.identity, self._now_s()
        end_s = min(identity.expires_at_s, identity.authorities_expire_at_s)
        is_due = self._warned_at_s is None or now_s - self._warned_at_s >= WARNING_INTERVAL_S
        if end_s - now_s >= WARNING_S or not is_due:
            return
        self._warned_at_s = now_s
        authorities = " or ".join(filter(None, (self._paths.ca, self._paths.peer_ca)))
        which = self._paths.cert if end_s == identity.expires_at_s else authorities
        if end_s <= now_s:
            logger.error(
                "a certificate has expired, and every new connection is refused: put another one there path=%s",
                which,
            )
        else:
            logger.warning(
                "a certificate expires soon: put another one there, it is read without a restart path=%s days=%.1f",
                which,
                (end_s - now_s) / 86400,
            )

    # --- What there is ---

    @property
    def identity(self) -> Identity:
        """What the files held when they were last good."""
        return self._loaded.identity

    @property
    def expires_at_s(self) -> tuple[float, float]:
        """Return when this process's certificate ends, and the first of the authorities, in seconds since the epoch."""
        return self.identity.expires_at_s, self.identity.authorities_expire_at_s

    @property
    def renewal_counts(self) -> dict[str, int]:
        """Return how often other files took the place of those before, and how often they were no good."""
        return {"taken": self.renewed_count, "refused": self.refused_count}

    def seconds_until_expiry(self) -> float:
        """Return how long this process's certificate is valid, for a metric; negative: it is not any more."""
        return self.identity.expires_at_s - self._now_s()

    # --- What ports are opened with ---

    def server_credentials(self) -> grpc.ServerCredentials:
        """Return what gRPC listens with: clients show a certificate, and every connection gets the newest of ours."""
        given = self._loaded.identity

        def newest() -> grpc.ServerCertificateConfiguration | None:
            # Called by gRPC's threads at every connection.
            nonlocal given
            identity = self._loaded.identity
            if identity is given:
                return None
            given = identity
            return server_configuration(identity)

        return grpc.dynamic_ssl_server_credentials(
            server_configuration(given), newest, require_client_authentication=True
        )

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Return what a gRPC connection to another node is opened with, now."""
        identity = self.identity
        return grpc.ssl_channel_credentials(identity.peer_authorities, identity.key, identity.chain)

    def peer_context(self, is_dialling: bool) -> ssl.SSLContext:
        """Return the context for one connection between nodes."""
        return self._loaded.peer_dialling if is_dialling else self._loaded.peer_listening

    def http_context(self) -> ssl.SSLContext:
        """Return the context for one connection to the port for monitoring.

        Who shows a certificate is held to it; who shows none gets in as a stranger, since probes have none.
        """
        return self._loaded.http

    # --- Reading ---

    def _now_s(self) -> float:
        return self._clock.wall_ms() / 1000

    def _look(self) -> tuple[Stamp | None, ...]:
        return tuple(self._files.stamp(path) for path in self._paths.all)

    def _read(self) -> _Loaded:
        identity = read_identity(self._paths, self._files, self._now_s(), (SERVER, CLIENT))
        problem = self._node_problem(identity.names)
        if problem is not None:
            problem = f"with {self._paths.cert} this node would be refused by the others: {problem}"
            raise ConfigurationInvalid(CERT, problem)
        signers = identity.peer_authorities
        return _Loaded(
            identity,
            peer_listening=self._context(ssl.PROTOCOL_TLS_SERVER, signers),
            peer_dialling=self._context(ssl.PROTOCOL_TLS_CLIENT, signers),
            http=self._context(ssl.PROTOCOL_TLS_SERVER, identity.authorities, ssl.CERT_OPTIONAL),
        )

    def _context(
        self, protocol: int, authorities: bytes, verify_mode: ssl.VerifyMode = ssl.CERT_REQUIRED
    ) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        # A node is known by the name that its certificate gives it, whatever address it has (peer_name.py).
        context.check_hostname = False
        context.verify_mode = verify_mode
        if protocol == ssl.PROTOCOL_TLS_SERVER:
            # Nobody resumes a session: each connection shows a certificate that is valid then.
            context.num_tickets = 0
        try:
            context.load_verify_locations(cadata=authorities.decode("ascii"))
            # It takes paths alone.  No pass phrase is ever asked for.
            context.load_cert_chain(self._paths.cert, self._paths.key, lambda: "")
        except (OSError, ValueError) as error:
            # ssl.SSLError is an OSError.
            problem = (
                getattr(error, "reason", None) or getattr(error, "strerror", None) or "unknown"
            )
            raise ConfigurationInvalid(
                CERT, f"{self._paths.cert} cannot be used: {str(problem).lower().replace('_', ' ')}"
            ) from None
        return context


def server_configuration(identity: Identity) -> grpc.ServerCertificateConfiguration:
    """Return what a gRPC server shows, and whom it trusts."""
    return grpc.ssl_server_certificate_configuration(
        [(identity.key, identity.chain)], identity.authorities
    )


def client_credentials(
    paths: TlsPaths, files: Files, now_s: float, uses: Sequence[ObjectIdentifier] = (CLIENT,)
) -> grpc.ChannelCredentials:
    """Return what a client connects with.  Raises ConfigurationInvalid, which says what is wrong with which file."""
    identity = read_identity(paths, files, now_s, uses)
    own: dict[str, Any] = {}
    if paths.cert:
        own = {"private_key": identity.key, "certificate_chain": identity.chain}
    return grpc.ssl_channel_credentials(identity.authorities, **own)
