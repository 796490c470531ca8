"""The HTTP server of the port for monitoring: what it answers, and what it does not put up with."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

from distlog.errors import AddressUnavailable
from distlog.monitoring.http import HttpLimits, HttpServer, Page, text_page
from distlog.runtime import SystemClock, TcpNetwork

LIMITS = HttpLimits(connection_count_max=4, request_size_max=1024, page_age_max_s=0.0)
GET = b"GET /page HTTP/1.1\r\nHost: n1\r\n\r\n"
CLOSING = b"GET /page HTTP/1.1\r\nHost: n1\r\nConnection: close\r\n\r\n"


def broken() -> Page:
    raise ValueError("a secret of the node")


@dataclass
class Serving:
    server: HttpServer
    port: int
    made: list[str]

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def answer(self, request: bytes) -> bytes:
        """Send this, and return all that comes until the server closes."""
        reader, writer = await self.open()
        writer.write(request)
        answer = await reader.read()
        writer.close()
        return answer


def serve(body: Callable[[Serving], Awaitable[None]], limits: HttpLimits = LIMITS) -> None:
    async def run() -> None:
        made: list[str] = []

        def page() -> Page:
            made.append("page")
            return text_page(f"made {len(made)}")

        server = HttpServer({"/page": page, "/broken": broken}, SystemClock(), limits)
        port = await server.start(TcpNetwork(), "127.0.0.1", 0)
        try:
            async with asyncio.timeout(20):
                await body(Serving(server, port, made))
        finally:
            server.stop()

    asyncio.run(run())


def test_a_page_is_answered_and_head_leaves_its_body_out() -> None:
    async def body(serving: Serving) -> None:
        answer = await serving.answer(CLOSING)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.endswith(b"\r\n\r\nmade 1\n")
        answer = await serving.answer(CLOSING.replace(b"GET", b"HEAD"))
        assert b"content-length: 7\r\n" in answer
        assert answer.endswith(b"\r\n\r\n")

    serve(body)


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /else HTTP/1.1\r\nHost: n1\r\nConnection: close\r\n\r\n", 404),
        (b"POST /page HTTP/1.1\r\nHost: n1\r\nContent-Length: 1\r\n\r\nx", 405),
        (b"DELETE /page HTTP/1.1\r\nHost: n1\r\n\r\n", 405),
        (b"GET /page HTTP/1.1\r\nHost: n1\r\nContent-Length: 5\r\n\r\n", 413),
        (b"GET /page HTTP/1.1\r\nHost: n1\r\nTransfer-Encoding: chunked\r\n\r\n", 413),
        (b"GET /page HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET /page HTTP/1.1\r\nHost: n1\r\nX: " + b"y" * 2000, 431),
        (b"GET /" + b"y" * 2000, 431),
        (b"GET /broken HTTP/1.1\r\nHost: n1\r\nConnection: close\r\n\r\n", 500),
    ],
    ids=[
        "no such page",
        "post",
        "delete",
        "a body",
        "a body in chunks",
        "no host",
        "tls",
        "a long head",
        "a long path",
        "a page that fails",
    ],
)
def test_what_is_not_served_is_refused_in_words_and_the_connection_closed(
    request_bytes: bytes, status: int
) -> None:
    async def body(serving: Serving) -> None:
        answer = await serving.answer(request_bytes)
        head, _, text = answer.partition(b"\r\n\r\n")
        assert head.startswith(f"HTTP/1.1 {status} ".encode())
        assert text.endswith(b"\n")
        assert len(text) > 10
        assert b"secret" not in answer
        assert b"Traceback" not in answer

    serve(body)


@pytest.mark.parametrize("head", [b"Content-Length: 5", b"Transfer-Encoding: chunked"])
def test_what_refuses_a_head_with_a_body_has_none_itself(
    head: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def body(serving: Serving) -> None:
        answer = await serving.answer(b"HEAD /page HTTP/1.1\r\nHost: n1\r\n" + head + b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert answer.endswith(b"\r\n\r\n")
        # Whatever is raised there would be a traceback for every stranger who asks so.
        assert not caplog.records

    serve(body)


def test_requests_follow_each_other_on_one_connection_and_one_that_is_too_early_is_not_taken() -> (
    None
):
    async def body(serving: Serving) -> None:
        reader, writer = await serving.open()
        for number in (1, 2, 3):
            writer.write(GET)
            answer = await reader.readuntil(b"made %d\n" % number)
            assert b"connection: close" not in answer
        writer.write(GET + GET)
        answer = await reader.read()
        assert answer.count(b"HTTP/1.1") == 1
        assert b"connection: close" in answer
        writer.close()

    serve(body)


def test_a_request_that_does_not_arrive_in_time_is_given_up_however_it_trickles() -> None:
    async def body(serving: Serving) -> None:
        for beginning in (b"", b"GET /pa", GET + b"GET /pa"):
            reader, writer = await serving.open()
            writer.write(beginning)
            await reader.read()
            writer.close()

    serve(body, HttpLimits(exchange_timeout_s=0.05, page_age_max_s=0.0))


def test_who_asks_again_and_has_not_read_the_last_answer_gets_no_other() -> None:
    size = 16 << 20

    async def body(serving: Serving) -> None:
        serving.server._pages = {"/page": lambda: Page(bytes(size))}
        reader, writer = await serving.open()
        for _ in range(3):
            # Each one alone, as those who read send it.
            writer.write(GET)
            await serving.answer(CLOSING.replace(b"/page", b"/else"))
        answered = 0
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 20):
                answered += len(data)
        assert answered < 2 * size
        writer.close()

    serve(body, HttpLimits(idle_timeout_s=0.5))


def test_an_idle_connection_is_closed_after_a_while() -> None:
    async def body(serving: Serving) -> None:
        reader, writer = await serving.open()
        writer.write(GET)
        assert (await reader.read()).endswith(b"made 1\n")
        writer.close()

    serve(body, HttpLimits(idle_timeout_s=0.05))


def test_of_too_many_connections_the_oldest_has_to_go_and_a_new_one_is_served() -> None:
    async def body(serving: Serving) -> None:
        idle = [await serving.open() for _ in range(LIMITS.connection_count_max)]
        assert (await serving.answer(CLOSING)).endswith(b"made 1\n")
        reader, _ = idle[0]
        assert await reader.read() == b""
        reader, writer = idle[-1]
        writer.write(GET)
        await reader.readuntil(b"made 2\n")
        for _, each in idle:
            each.close()

    serve(body)


def test_a_page_is_made_a_few_times_in_a_second_however_often_it_is_asked_for() -> None:
    async def body(serving: Serving) -> None:
        for _ in range(20):
            assert (await serving.answer(CLOSING)).endswith(b"made 1\n")
        assert serving.made == ["page"]

    serve(body, HttpLimits(page_age_max_s=60))


def test_an_address_that_is_in_use_is_named_with_the_flag() -> None:
    async def body(serving: Serving) -> None:
        other = HttpServer({}, SystemClock())
        with pytest.raises(AddressUnavailable) as caught:
            await other.start(TcpNetwork(), "127.0.0.1", serving.port)
        assert "choose another --http-listen" in str(caught.value)

    serve(body)
