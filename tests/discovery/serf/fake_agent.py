"""A program at the other end of the RPC that says what the test wants, agent or not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Self

import msgpack

from distlog.discovery.serf.client import AgentAddress, SerfClient
from distlog.runtime import TcpNetwork

HOST = "127.0.0.1"
MEMBER = {
    "Name": "n1.1",
    "Addr": b"\x7f\x00\x00\x01",
    "Port": 7946,
    "Tags": {"distlog.id": "n1"},
    "Status": "alive",
}


def packed(*values: object) -> bytes:
    return b"".join(msgpack.packb(value) for value in values)


def header(seq: int, error: str = "") -> bytes:
    return packed({"Seq": seq, "Error": error})


class FakeAgent:
    """Takes connections.  `answer` gets each request and returns bytes for it; a handshake is answered as it should be."""

    def __init__(self, answer: Callable[[str, int, Any], bytes] = lambda *_: b"") -> None:
        self.answer = answer
        # (command, seq, body) in the order of their arrival.
        self.requests: list[tuple[str, int, Any]] = []
        self.arrived = asyncio.Event()
        # What it says before it is asked.
        self.greeting = b""
        self._writers: list[asyncio.StreamWriter] = []
        self._serving: list[asyncio.Task[None] | None] = []
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, HOST, 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.hang_up()

    @property
    def address(self) -> AgentAddress:
        assert self._server is not None
        return AgentAddress(HOST, self._server.sockets[0].getsockname()[1])

    async def client(self) -> SerfClient:
        return await SerfClient.open(TcpNetwork(), self.address)

    def say(self, data: bytes) -> None:
        """Send bytes to whoever is connected."""
        for writer in self._writers:
            writer.write(data)

    def hang_up(self) -> None:
        for writer in self._writers:
            writer.close()
        self._writers.clear()

    async def closed(self) -> None:
        """Return when nobody is served any more."""
        for task in self._serving:
            if task is not None:
                await asyncio.wait([task])

    async def until_asked(self, command: str) -> int:
        """Return the Seq of the last request for `command`, when there is one."""
        async with asyncio.timeout(10):
            while True:
                for name, seq, _ in reversed(self.requests):
                    if name == command:
                        return seq
                self.arrived.clear()
                await self.arrived.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._serving.append(asyncio.current_task())
        self._writers.append(writer)
        writer.write(self.greeting)
        unpacker = msgpack.Unpacker()
        command, seq = "", 0
        while data := await reader.read(65536):
            unpacker.feed(data)
            for value in unpacker:
                if not command:
                    command, seq = value["Command"], value["Seq"]
                    if command not in WITHOUT_BODY:
                        continue
                    value = None
                self.requests.append((command, seq, value))
                known, command = command, ""
                writer.write(
                    header(seq) if known == "handshake" else self.answer(known, seq, value)
                )
                self.arrived.set()
        writer.close()


WITHOUT_BODY = ("members", "leave", "stats", "list-keys")
