"""Connections that do not begin to speak."""

from __future__ import annotations

import asyncio

import pytest

from distlog.server.limits import ServerLimits
from tests.server.serving import Serving, serve


@pytest.mark.parametrize("begun", [b"", b"PRI * HTT", b"\x16\x03\x01\x02\x00\x01"])
def test_who_does_not_begin_in_time_is_hung_up_on(begun: bytes) -> None:
    async def body(server: Serving) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(begun)
        # To its end, long before the 120 s that gRPC would wait by itself.
        await reader.read()
        writer.close()

    serve(body, ServerLimits(handshake_timeout_s=0.2))
