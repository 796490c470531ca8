"""A client that speaks just enough HTTP/2 to misbehave: every frame is what the test says, and nothing is answered by itself."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, CONTINUATION = 0, 1, 3, 4, 6, 7, 9
END_STREAM, END_HEADERS = 1, 4
PRODUCE, PRODUCE_STREAM = "/log.v1.Log/Produce", "/log.v1.Log/ProduceStream"
CONSUME = "/log.v1.Log/Consume"
CONSUME_STREAM, CONSUME_BATCH = "/log.v1.Log/ConsumeStream", "/log.v1.Log/ConsumeBatch"
Header = tuple[bytes, bytes]


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return (
        len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
    )


def header_block(path: str, more: Sequence[Header] = ()) -> bytes:
    """Return the header block of a call of gRPC, every header literally."""
    headers = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path.encode()),
        (b":authority", b"localhost"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
        *more,
    ]
    return b"".join(b"\x00" + text(name) + text(value) for name, value in headers)


def text(data: bytes) -> bytes:
    """Return a string of HPACK, without Huffman's code."""
    if len(data) < 127:
        return bytes([len(data)]) + data
    rest, size = len(data) - 127, bytearray([127])
    while rest >= 128:
        size.append(rest & 0x7F | 0x80)
        rest >>= 7
    size.append(rest)
    return bytes(size) + data


def message(data: bytes, claimed_size: int | None = None, *, is_compressed: bool = False) -> bytes:
    """Return a message of gRPC, which may claim to have another size, or to be compressed."""
    size = len(data) if claimed_size is None else claimed_size
    return bytes([is_compressed]) + size.to_bytes(4, "big") + data


class BadClient:
    """One connection.  What the server says is taken and only looked at."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        # Kinds of the frames that came, with their streams.
        self.received: list[tuple[int, int]] = []
        self.is_closed = False
        # Whether it says that it has taken the server's settings: only who has begun to speak may.
        self._answers = True
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def connect(cls, host: str, port: int, *, preface: bool = True) -> BadClient:
        client = cls(*await asyncio.open_connection(host, port))
        client._answers = preface
        if preface:
            client.send(PREFACE + frame(SETTINGS, 0, 0, b""))
        return client

    def send(self, data: bytes) -> None:
        if not self._writer.transport.is_closing():
            self._writer.write(data)

    async def drain(self) -> None:
        """Return when most of what was sent is on its way, or nobody takes it any more."""
        with contextlib.suppress(ConnectionError):
            await self._writer.drain()

    def begin_call(self, stream: int, path: str, more: Sequence[Header] = ()) -> None:
        self.send(frame(HEADERS, END_HEADERS, stream, header_block(path, more)))

    def send_data(self, stream: int, data: bytes, *, end: bool = False) -> None:
        """Send data in frames of the largest size that every server takes."""
        for start in range(0, len(data), 16384):
            is_last = end and start + 16384 >= len(data)
            self.send(frame(DATA, END_STREAM * is_last, stream, data[start : start + 16384]))

    def kinds(self, stream: int = 0) -> set[int]:
        return {kind for kind, of in self.received if of == stream}

    async def closed(self) -> None:
        """Return when the server has hung up."""
        await self._reading

    async def close(self) -> None:
        self._reading.cancel()
        self._writer.transport.abort()
        await asyncio.wait([self._reading])

    async def _read(self) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await self._reader.readexactly(9)
                await self._reader.readexactly(int.from_bytes(head[:3], "big"))
                stream = int.from_bytes(head[5:9], "big") & 0x7FFFFFFF
                if len(self.received) < 100_000:
                    self.received.append((head[3], stream))
                if head[3] == SETTINGS and not head[4] and self._answers:
                    self.send(frame(SETTINGS, 1, 0, b""))
        self.is_closed = True
