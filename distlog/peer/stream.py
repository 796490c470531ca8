"""The asyncio side of one connection: hands bytes to the `Connection`, its events to the network, its answers to the
transport.  Frames that are queued in one step of the loop leave in one write.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

from distlog.peer.connection import Connection, Event
from distlog.peer.frames import HEADER_SIZE, Channel, Frame, encode_header
from distlog.peer.handshake import Greeting
from distlog.peer.limits import PeerLimits

# Queued bytes are joined into one write up to this size; beyond it the copy costs more than the calls that it saves.
JOINED_SIZE_MAX = 256 << 10
CHANNELS = {int(channel): channel for channel in Channel}

FrameReceived = Callable[[str, Channel, int, bytes], None]


class StreamOwner(Protocol):
    """Who decides what happens to the streams: the PeerNetwork."""

    counters: dict[str, int]

    def stream_made(self, stream: Stream) -> None:
        """Take a stream whose transport has just been connected."""

    def stream_event(self, stream: Stream, event: Event) -> None:
        """Take any event of the connection but a frame; a greeting is answered before this returns."""

    def stream_lost(self, stream: Stream, problem: str) -> None:
        """Take that the transport is closed, for whatever reason.  The last call for a stream."""


class Stream(asyncio.Protocol):
    """One connection on its transport."""

    def __init__(
        self,
        owner: StreamOwner,
        frame_received: FrameReceived,
        limits: PeerLimits,
        dialled_id: str | None,
    ) -> None:
        self._owner = owner
        self._frame_received = frame_received
        self._limits = {channel: limits.of_channel(channel) for channel in Channel}
        self._transport: asyncio.Transport | None = None
        self.connection = Connection(limits)
        # The node that this end dialled; None if the connection came in.
        self.dialled_id = dialled_id
        # The node at the far end, once its greeting has been approved.
        self.node_id = ""
        # Of the identity that this end greeted with; an older one than the network's must greet again.
        self.generation = 0
        # Loop time when the handshake finished.
        self.finished_at: float | None = None
        # It was one that frames travel on.
        self.was_open = False
        # Whether the end of this stream has had its effect on the next dial.
        self.settled = False
        self.deadline: asyncio.TimerHandle | None = None
        # Whether anything was received, and sent, since the last beat; beats in a row without anything received.
        self.heard = False
        self.spoke = False
        self.silent_beat_count = 0
        # Headers and payloads that wait for `flush`, and their bytes.
        self._queue: list[bytes] = []
        self._queue_size = 0
        # Bytes that the transport had not sent when it was last asked.
        self._unsent_size = 0

    @property
    def own(self) -> Greeting | None:
        """What this end said."""
        return self.connection.own

    @property
    def peer(self) -> Greeting | None:
        """What the far end said."""
        return self.connection.peer

    @property
    def address(self) -> str:
        """Where the far end is, for the log."""
        peer = self._transport.get_extra_info("peername") if self._transport else None
        return f"{peer[0]}:{peer[1]}" if peer else "an unknown address"

    @property
    def transport(self) -> asyncio.Transport:
        """What it is on, from `connection_made` on."""
        assert self._transport is not None
        return self._transport

    # --- what asyncio calls ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._owner.stream_made(self)

    def data_received(self, data: bytes) -> None:
        self.heard = True
        frame_count = 0
        connection, frame_received, node_id = self.connection, self._frame_received, self.node_id
        connection.receive_data(data)
        while (event := connection.next_event()) is not None:
            if type(event) is Frame:
                frame_count += 1
                frame_received(node_id, CHANNELS[event.channel], event.group, event.payload)
            else:
                self._owner.stream_event(self, event)
                node_id = self.node_id
        counters = self._owner.counters
        counters["bytes_received"] += len(data)
        counters["frames_received"] += frame_count

    def connection_lost(self, error: Exception | None) -> None:
        self.connection.close()
        self._owner.stream_lost(self, "it was closed" if error is None else str(error))

    # --- what the network calls -----------------------------------------------------------------

    def queue(self, channel: int, group: int, *payload: bytes) -> bool:
        """Put a frame, whose payload may be in several parts, behind what waits for `flush`; False if too much waits already.

        A queue that is empty takes any frame: one larger than the queue's limit could never be sent otherwise.
        """
        limits = self._limits[CHANNELS[channel]]
        payload_size = sum(map(len, payload))
        assert payload_size <= limits.frame_size_max, "the sender must split its messages"
        size = HEADER_SIZE + payload_size
        waiting_size = self._queue_size + self._unsent_size
        if waiting_size and waiting_size + size > limits.queue_size_max:
            waiting_size = self.waiting_size
            if waiting_size and waiting_size + size > limits.queue_size_max:
                return False
        self._queue.append(encode_header(channel, group, *payload))
        self._queue += payload
        self._queue_size += size
        return True

    @property
    def has_queued(self) -> bool:
        """Whether `flush` has something to do."""
        return bool(self._queue)

    @property
    def waiting_size(self) -> int:
        """Bytes that were queued and that the operating system has not taken yet."""
        assert self._transport is not None
        self._unsent_size = self._transport.get_write_buffer_size()
        return self._queue_size + self._unsent_size

    def flush(self) -> None:
        """Hand everything queued to the transport.  Never calls back."""
        assert self._transport is not None
        if not self._queue:
            return
        chunks, size = self._queue, self._queue_size
        self._queue, self._queue_size = [], 0
        if self._transport.is_closing():
            return
        if size <= JOINED_SIZE_MAX:
            self._transport.write(b"".join(chunks))
        else:
            self._write_in_pieces(chunks)
        self.spoke = True
        self._unsent_size = self._transport.get_write_buffer_size()
        self._owner.counters["bytes_sent"] += size

    def _write_in_pieces(self, chunks: list[bytes]) -> None:
        """Write small chunks joined and large ones as they are."""
        assert self._transport is not None
        joined: list[bytes] = []
        for chunk in chunks:
            if len(chunk) < JOINED_SIZE_MAX // 4:
                joined.append(chunk)
                continue
            self._transport.write(b"".join(joined))
            self._transport.write(chunk)
            joined = []
        self._transport.write(b"".join(joined))

    def write(self, message: bytes) -> None:
        """Send a message of the handshake, behind what is queued."""
        self._queue.append(message)
        self._queue_size += len(message)
        self.flush()

    def drop(self) -> None:
        """Close at once: nothing more is read, and what was not sent is lost."""
        assert self._transport is not None
        self.connection.close()
        self._queue, self._queue_size = [], 0
        self._transport.abort()

    def finish(self) -> None:
        """Close when everything queued has been sent; nothing more is read."""
        assert self._transport is not None
        self.flush()
        self.connection.close()
        self._transport.close()
