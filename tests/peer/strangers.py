"""Somebody who connects to a peer port and is no PeerNetwork."""

from __future__ import annotations

import asyncio
from typing import cast

from distlog.peer.frames import FrameDecoder
from distlog.peer.handshake import Message, decode_message
from distlog.peer.limits import PeerLimits
from tests.peer.nodes import PORT, World


class Stranger(asyncio.Protocol):
    """One connection, under the control of the test."""

    def __init__(self) -> None:
        self.received = b""
        self.closed_at: float | None = None
        self.closed = asyncio.Event()
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.received += data

    def connection_lost(self, error: Exception | None) -> None:
        self.closed_at = asyncio.get_running_loop().time()
        self.closed.set()

    def messages(self) -> list[Message]:
        """Return the control messages that came."""
        decoder = FrameDecoder(PeerLimits().payload_size_max())
        decoder.receive_data(self.received)
        messages = []
        while (frame := decoder.next_frame()) is not None:
            messages.append(decode_message(frame.payload))
        return messages


async def stranger(world: World, target: str, source: str = "stranger") -> Stranger:
    """Connect to the peer port of a node."""
    made: list[Stranger] = []

    def factory() -> Stranger:
        made.append(Stranger())
        return made[0]

    await world.network.host(source).connect(factory, target, PORT)
    return made[0]
