"""A small HTTP/1.1 server: GET and HEAD of a few pages, each made at once, with a limit on everything.

    bytes -> h11 -> path -> page() -> bytes

A request has a head of a few KiB, no body, and so many seconds to arrive; the answer has as many to leave.  Of more connections
than the limit the oldest is closed: who holds many open keeps nobody out.  A request that is sent before the one ahead of it was answered
is not taken: the connection is closed behind the answer, as a server may; so nothing piles up for who does not read.  Where connections
are encrypted, some pages are for those alone who have shown a certificate.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, cast

import h11

from distlog.errors import AddressUnavailable
from distlog.runtime import Clock, Network

logger = logging.getLogger(__name__)

TEXT = "text/plain; charset=utf-8"
JSON = "application/json; charset=utf-8"
METHODS = (b"GET", b"HEAD")
STRANGER = (
    "this page is for those who show a certificate that an authority of --tls-ca has signed; "
    "with --http-open the node shows it to everybody"
)


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Sizes in bytes, times in seconds."""

    # At the same time; one more takes the place of the oldest.
    connection_count_max: int = 32
    # Of the head of a request.  431.
    request_size_max: int = 8 << 10
    # For a request to arrive, and for the last answer of a connection to leave.  The connection is closed.
    exchange_timeout_s: float = 5.0
    # Between two requests of a connection.
    idle_timeout_s: float = 75.0
    # A page is made again after so long; until then it is the same one for everybody.
    page_age_max_s: float = 0.25


@dataclass(frozen=True, slots=True)
class Page:
    """What is answered."""

    body: bytes
    status: int = 200
    content_type: str = TEXT


def text_page(text: str, status: int = 200) -> Page:
    """Return a page of one text."""
    return Page(f"{text}\n".encode(), status)


class HttpServer:
    """Serves pages at one address."""

    def __init__(
        self,
        pages: Mapping[str, Callable[[], Page]],
        clock: Clock,
        limits: HttpLimits | None = None,
        guarded: Collection[str] = (),
    ) -> None:
        """pages: by path, what makes each; it must not take long.

        guarded: the paths of those that nobody gets who comes encrypted and has shown no certificate.
        """
        self._guarded = guarded
        self._pages = pages
        self._clock = clock
        self.limits = limits or HttpLimits()
        # When each page was made last, and what it was.
        self._made: dict[str, tuple[float, Page]] = {}
        # In the order in which they came.
        self._connections: dict[_Connection, None] = {}
        self._server: asyncio.AbstractServer | None = None

    async def start(self, network: Network, host: str, port: int) -> int:
        """Listen; return the port, which matters when 0 was asked for.  Raises AddressUnavailable."""
        try:
            self._server = await network.listen(lambda: _Connection(self), host, port)
        except OSError as error:
            problem = error.strerror or str(error)
            raise AddressUnavailable(
                address=f"{host}:{port}", problem=problem, flag="--http-listen"
            ) from None
        sockets: Any = getattr(self._server, "sockets", ())
        return int(sockets[0].getsockname()[1])

    def stop(self) -> None:
        """Close the address and every connection."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.abort()

    def page(self, target: bytes, *, is_stranger: bool = False) -> Page:
        """Return the page of a path.  Never raises."""
        path = target.partition(b"?")[0].decode("ascii", "replace")
        make = self._pages.get(path)
        if make is None:
            return text_page(f"there is no such page; there are {', '.join(self._pages)}", 404)
        if is_stranger and path in self._guarded:
            return text_page(STRANGER, 403)
        now = self._clock.monotonic()
        made_at, page = self._made.get(path, (float("-inf"), None))
        if page is None or now - made_at >= self.limits.page_age_max_s:
            try:
                page = make()
            except Exception:
                logger.exception(
                    "a page could not be made: please report it, with the lines below path=%s", path
                )
                return text_page("internal error: the log of the node has the details", 500)
            self._made[path] = (now, page)
        return page

    def opened(self, connection: _Connection) -> None:
        """Take a new connection, for which the oldest may have to go."""
        self._connections[connection] = None
        if len(self._connections) > self.limits.connection_count_max:
            next(iter(self._connections)).abort()

    def closed(self, connection: _Connection) -> None:
        self._connections.pop(connection, None)


class _Connection(asyncio.Protocol):
    """One connection: one request after the other."""

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._limits = server.limits
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._http = h11.Connection(
            h11.SERVER, max_incomplete_event_size=self._limits.request_size_max
        )
        self._deadline: asyncio.TimerHandle | None = None
        # Nothing of the next request has arrived.
        self._is_idle = False
        self._is_closing = False
        # It is encrypted, and has shown no certificate.
        self._is_stranger = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        encrypted = transport.get_extra_info("ssl_object")
        self._is_stranger = encrypted is not None and encrypted.getpeercert(True) is None
        self._expect_within(self._limits.exchange_timeout_s)
        self._server.opened(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._is_closing = True
        if self._deadline is not None:
            self._deadline.cancel()
        self._server.closed(self)

    def abort(self) -> None:
        """Close at once."""
        self._server.closed(self)
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        if self._is_closing:
            return
        if self._is_idle and self._transport.get_write_buffer_size():
            # It has not read the last answer, and asks again: what waits for it would be ever more.
            self._close()
            return
        if self._is_idle:
            self._is_idle = False
            self._expect_within(self._limits.exchange_timeout_s)
        try:
            self._http.receive_data(data)
            event = self._http.next_event()
            if isinstance(event, h11.Request):
                self._take(event)
        except h11.RemoteProtocolError as error:
            self._refuse(f"that is no request: {error}", error.error_status_hint)

    def _take(self, request: h11.Request) -> None:
        with_body = request.method != b"HEAD"
        if request.method not in METHODS:
            self._refuse("only GET and HEAD are answered here", 405)
        elif has_body(request):
            self._refuse("a request has no body here", 413, with_body=with_body)
        else:
            self._http.next_event()
            # What is behind the request was sent too early.
            self._is_closing = bool(self._http.trailing_data[0])
            page = self._server.page(request.target, is_stranger=self._is_stranger)
            self._send(page, with_body=with_body)

    def _refuse(self, problem: str, status: int, *, with_body: bool = True) -> None:
        self._is_closing = True
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._send(text_page(problem, status), with_body=with_body)
        else:
            self._close()

    def _send(self, page: Page, *, with_body: bool) -> None:
        headers = [
            ("content-type", page.content_type),
            ("content-length", str(len(page.body))),
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
        ]
        if page.status == 405:
            headers.append(("allow", "GET, HEAD"))
        if self._is_closing:
            headers.append(("connection", "close"))
        reason = HTTPStatus(page.status).phrase.encode()
        response = h11.Response(status_code=page.status, headers=headers, reason=reason)
        parts = [self._http.send(response)]
        if with_body:
            parts.append(self._http.send(h11.Data(data=page.body)))
        parts.append(self._http.send(h11.EndOfMessage()))
        assert self._transport is not None
        self._transport.write(b"".join(part for part in parts if part))
        if self._is_closing or self._http.our_state is h11.MUST_CLOSE:
            self._close()
            return
        self._http.start_next_cycle()
        self._is_idle = True
        self._expect_within(self._limits.idle_timeout_s)

    def _close(self) -> None:
        """Close when what was written has left, or did not in time."""
        self._is_closing = True
        self._expect_within(self._limits.exchange_timeout_s)
        assert self._transport is not None
        self._transport.close()

    def _expect_within(self, timeout_s: float) -> None:
        """Close the connection at once unless something else is expected by then."""
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self._loop.call_later(timeout_s, self.abort)


def has_body(request: h11.Request) -> bool:
    """Tell whether a request says that something comes behind its head."""
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
        for name, value in request.headers
    )
