"""Connections between nodes over TLS: the Network port, around another one.

A connection that comes in is shaken hands with here and not by the event loop's server: so how many may be at it at once is
limited, each with a deadline; each gets the newest certificates; and the log says why one failed.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from typing import Any, cast

from distlog.runtime import Clock, Network
from distlog.security.certificates import names_in
from distlog.security.peer_name import ANY, peer_name_problem

logger = logging.getLogger(__name__)

HANDSHAKE_TIMEOUT_S = 5.0
# How long the far end has to say that it has heard the end, when this one closes.
CLOSING_TIMEOUT_S = 1.0
# Connections that come in and are not through with their handshake; of more, the oldest is closed.
HANDSHAKE_COUNT_MAX = 64
# What comes with the last message of a handshake, before its protocol is there.
EARLY_SIZE_MAX = 1 << 20
# At most one line of the log in so many seconds says that a handshake failed.
COMPLAINT_INTERVAL_S = 5.0
# What OpenSSL calls it: a word for a metric, and what it means.  Nothing here quotes what the far end sent.
REASONS = {
    "WRONG_VERSION_NUMBER": ("no_tls", "the other end does not speak TLS"),
    "HTTP_REQUEST": ("no_tls", "the other end speaks HTTP and not TLS"),
    "UNSUPPORTED_PROTOCOL": ("old_tls", "the other end speaks no TLS 1.3"),
    "TLSV1_ALERT_PROTOCOL_VERSION": ("old_tls", "the other end speaks no TLS 1.3"),
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": (
        "no_certificate",
        "the other end shows no certificate: give it --tls-cert",
    ),
    "CERTIFICATE_VERIFY_FAILED": ("untrusted", "its certificate cannot be trusted"),
    "TLSV1_ALERT_UNKNOWN_CA": (
        "distrusts",
        "the other end does not trust the authority of this node's certificate: compare --tls-ca of both",
    ),
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": (
        "distrusts",
        "the other end saw no certificate of this node",
    ),
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": (
        "distrusts",
        "this node's certificate has expired for the other end: renew it, or set its clock",
    ),
    "SSLV3_ALERT_BAD_CERTIFICATE": (
        "distrusts",
        "the other end takes this node's certificate for a bad one",
    ),
}
# The other words of a metric: hung up, nothing said in time, pushed out by who came later, and whatever else OpenSSL found.
CLOSED, LATE, PUSHED_OUT, OTHER = "closed", "late", "pushed_out", "other"
FAILURES = (*dict.fromkeys(word for word, _ in REASONS.values()), CLOSED, LATE, PUSHED_OUT, OTHER)
# What asyncio and uvloop say then, as an error that anything else could be.
HANDSHAKE_TIMEOUT = "SSL handshake is taking longer than"
# What the log says of a port where it failed.
PEER = "peer"
HTTP = "connection for monitoring"


class TlsNetwork:
    """A Network whose connections are encrypted and whose far ends have shown a certificate."""

    def __init__(
        self,
        inner: Network,
        context: Callable[[bool], ssl.SSLContext],
        clock: Clock,
        *,
        peer_name: str = ANY,
        what: str = PEER,
    ) -> None:
        """context(is_dialling): what the next connection is secured with.

        peer_name: what certificates of nodes must say (peer_name.py).  what: how the log calls who connects.
        """
        self._inner = inner
        self._context = context
        self._peer_name = peer_name
        self._what = what
        self._clock = clock
        # Of connections that came in, the oldest first.
        self._arriving: dict[_Arriving, None] = {}
        self._complained_at_s = float("-inf")
        # Handshakes that were begun, and those that failed, by a word that says why.
        self.handshake_count = 0
        self.failures = dict.fromkeys(FAILURES, 0)

    async def listen(
        self, protocol_factory: Callable[[], asyncio.Protocol], host: str, port: int
    ) -> asyncio.AbstractServer:
        return await self._inner.listen(lambda: _Arriving(self, protocol_factory), host, port)

    async def connect(
        self, protocol_factory: Callable[[], asyncio.Protocol], host: str, port: int
    ) -> None:
        """Open one connection.  Raises OSError, also when the handshake fails."""
        made: list[_Dialled] = []

        def dialled() -> _Dialled:
            made.append(_Dialled())
            return made[-1]

        await self._inner.connect(dialled, host, port)
        raw = made[-1]
        try:
            await self._secure(raw, self._context(True), protocol_factory, host)
        except OSError as error:
            raise ConnectionError(problem_of(error)) from None

    def objection(self, transport: asyncio.BaseTransport, node_id: str | None) -> str | None:
        """Say why who is at the far end of a transport is not that node, or no node (None); None: nothing speaks against it."""
        connection = transport.get_extra_info("ssl_object")
        certificate = connection.getpeercert(True) if connection is not None else None
        if certificate is None:
            return "it has shown no certificate"
        return peer_name_problem(self._peer_name, names_in(certificate), node_id)

    # --- Connections that come in ---

    def arrived(self, arriving: _Arriving) -> None:
        """Begin the handshake with who has just connected."""
        self._arriving[arriving] = None
        if len(self._arriving) > HANDSHAKE_COUNT_MAX:
            # The oldest: a node is through with it in a few milliseconds.
            self.push_out(next(iter(self._arriving)))
        loop = asyncio.get_running_loop()
        arriving.task = loop.create_task(self._receive(arriving))
        # Behind the first step of that task, whose own calls are then before ours: TLS is connected, and has read nothing yet.
        loop.call_soon(loop.call_soon, arriving.pass_on)

    def push_out(self, arriving: _Arriving) -> None:
        """Have done with a connection that is not through with its handshake."""
        del self._arriving[arriving]
        arriving.is_pushed_out = True
        arriving.abort()

    async def _receive(self, arriving: _Arriving) -> None:
        address = arriving.address
        try:
            # Nothing may be awaited before it: see `arrived`.
            await self._secure(arriving, self._context(False), arriving.protocol_factory, None)
        except OSError as error:
            # Whoever dials may hang up, when it is connected with this node in another way.
            level = logging.WARNING if isinstance(error, ssl.SSLError) else logging.INFO
            self._complain(level, address, problem_of(error))
        finally:
            self._arriving.pop(arriving, None)

    async def _secure(
        self,
        raw: _Raw,
        context: ssl.SSLContext,
        protocol_factory: Callable[[], asyncio.Protocol],
        host: str | None,
    ) -> None:
        """Shake hands on a connection, and hand it over to its protocol.  Raises OSError."""
        self.handshake_count += 1
        try:
            secured, early = await _shaken(raw, context, host)
        except BaseException as error:
            reason = failure_of(error)[0] if isinstance(error, OSError) else CLOSED
            self.failures[PUSHED_OUT if raw.is_pushed_out else reason] += 1
            raise
        assert raw.transport is not None
        protocol = protocol_factory()
        secured.set_protocol(protocol)
        protocol.connection_made(TlsTransport(secured, raw.transport))
        if early.data:
            protocol.data_received(bytes(early.data))

    def _complain(self, level: int, address: str, problem: str) -> None:
        now_s = self._clock.monotonic()
        if now_s - self._complained_at_s >= COMPLAINT_INTERVAL_S:
            self._complained_at_s = now_s
            logger.log(level, "%s not secured address=%s problem=%s", self._what, address, problem)


async def _shaken(
    raw: _Raw, context: ssl.SSLContext, host: str | None
) -> tuple[asyncio.Transport, _Early]:
    """Shake hands; return the secured transport, and what keeps what arrives there.  Raises OSError; the connection is closed then."""
    early = _Early()
    transport = raw.transport
    assert transport is not None
    if transport.is_closing():
        # Who came first was pushed out, or has gone, before it was its turn.
        raise ConnectionResetError("the other end closed the connection")
    try:
        secured = await asyncio.get_running_loop().start_tls(
            transport,
            early,
            context,
            server_side=host is None,
            server_hostname=host,
            ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S,
            ssl_shutdown_timeout=CLOSING_TIMEOUT_S,
        )
    except BaseException:
        transport.abort()
        raise
    if secured is None or early.is_lost or secured.get_extra_info("cipher") is None:
        # The far end was gone before its protocol was there.
        transport.abort()
        raise ConnectionResetError("the other end closed the connection")
    return secured, early


class TlsTransport(asyncio.Transport):
    """A transport over TLS that also counts what waits below it."""

    def __init__(self, secured: asyncio.Transport, raw: asyncio.Transport) -> None:
        super().__init__()
        self._secured = secured
        self._raw = raw
        # Called for every write.
        self.write = secured.write  # type: ignore[method-assign]
        self.is_closing = secured.is_closing  # type: ignore[method-assign]

    def get_write_buffer_size(self) -> int:
        return self._secured.get_write_buffer_size() + self._raw.get_write_buffer_size()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._secured.get_extra_info(name, default)

    def close(self) -> None:
        self._secured.close()

    def abort(self) -> None:
        # Below TLS: there is nothing that the far end has to be told.
        self._raw.abort()

    def pause_reading(self) -> None:
        self._secured.pause_reading()

    def resume_reading(self) -> None:
        self._secured.resume_reading()


class _Raw(asyncio.Protocol):
    """A connection that is not secured yet."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.is_pushed_out = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()


class _Dialled(_Raw):
    """One that this end has dialled: the far end says nothing before it is spoken to."""


class _Arriving(_Raw):
    """One that has come in: the far end may have begun with TLS before it is taken over."""

    def __init__(
        self, network: TlsNetwork, protocol_factory: Callable[[], asyncio.Protocol]
    ) -> None:
        super().__init__()
        self._network = network
        self.protocol_factory = protocol_factory
        self.task: asyncio.Task[None] | None = None
        self._early = b""

    @property
    def address(self) -> str:
        peer = self.transport.get_extra_info("peername") if self.transport else None
        return f"{peer[0]}:{peer[1]}" if peer else "an unknown address"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._network.arrived(self)

    def data_received(self, data: bytes) -> None:
        self._early += data

    def pass_on(self) -> None:
        """Give TLS what came before it was there."""
        assert self.transport is not None
        if not self._early or self.transport.is_closing():
            return
        protocol = cast(asyncio.BufferedProtocol, self.transport.get_protocol())
        data, self._early = memoryview(self._early), b""
        while data:
            buffer = memoryview(protocol.get_buffer(len(data)))
            size = min(len(buffer), len(data))
            buffer[:size] = data[:size]
            protocol.buffer_updated(size)
            data = data[size:]


class _Early(asyncio.Protocol):
    """Keeps what arrives between the last message of the handshake and the protocol that it is for."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.is_lost = False

    def data_received(self, data: bytes) -> None:
        self.data += data
        assert len(self.data) <= EARLY_SIZE_MAX, "one step of the loop reads less"

    def connection_lost(self, error: Exception | None) -> None:
        self.is_lost = True


def problem_of(error: OSError) -> str:
    """Say in words why a handshake failed."""
    return failure_of(error)[1]


def failure_of(error: OSError) -> tuple[str, str]:
    """Return a word of a fixed set for why a handshake failed, and the words for a person."""
    reason = getattr(error, "reason", None)
    if isinstance(error, ssl.SSLCertVerificationError):
        word, problem = REASONS["CERTIFICATE_VERIFY_FAILED"]
        return word, f"{problem}: {error.verify_message}"
    if isinstance(reason, str):
        return REASONS.get(reason, (OTHER, reason.lower().replace("_", " ")))
    if isinstance(error, TimeoutError) or HANDSHAKE_TIMEOUT in str(error):
        return LATE, "no end of the TLS handshake in time"
    problem = error.strerror or str(error)
    return CLOSED, problem or "the other end closed the connection during the TLS handshake"
