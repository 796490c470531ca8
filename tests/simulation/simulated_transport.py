"""One direction of a simulated connection, and the asyncio transport at an end of it (see simulated_network.py)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context
from enum import Enum, auto
from typing import Any, Protocol

# What travels belongs to no process: it arrives, whatever becomes of the sender.
NOBODY = Context()


class Kind(Enum):
    """What travels."""

    OPEN = auto()
    ACCEPT = auto()
    REFUSE = auto()
    DATA = auto()
    END = auto()
    RESET = auto()


class Link(Protocol):
    """What a pipe asks about the link that it runs over."""

    def next_delay_s(self) -> float:
        """Return how long the next thing travels."""

    def is_held(self) -> bool:
        """Tell whether nothing arrives now."""


class Pipe:
    """One direction of one connection: what is on its way, in order."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        link: Link,
        arrived: Callable[[Kind, bytes], None],
    ) -> None:
        self._loop = loop
        self._link = link
        self._arrived = arrived
        # (time of arrival, what, bytes); times never decrease.
        self._items: deque[tuple[float, Kind, bytes]] = deque()
        self._last_arrival = 0.0
        self._timer: asyncio.TimerHandle | None = None
        # Bytes that were put and that the far end's protocol has not taken yet.
        self.in_flight_size = 0
        # Called when the far end has taken some.
        self.room_made: Callable[[], None] = lambda: None
        self.is_broken = False

    def put(self, kind: Kind, data: bytes = b"") -> None:
        """Send something after everything that was put before."""
        # Also of a broken pipe: who does not know of the break goes on until the window is full.
        self.in_flight_size += len(data)
        if self.is_broken:
            return
        arrival = max(self._last_arrival, self._loop.time() + self._link.next_delay_s())
        self._last_arrival = arrival
        self._items.append((arrival, kind, data))
        self._wait()

    def taken(self, size: int) -> None:
        """Take note that the far end's protocol has read `size` bytes."""
        self.in_flight_size -= size
        if not self.is_broken:
            self.room_made()

    def release(self) -> None:
        """Look again whether the link lets something arrive."""
        self._wait()

    def break_after(self, kept_count: int) -> None:
        """Lose everything but the next `kept_count` items, and whatever is put from now on."""
        self.is_broken = True
        while len(self._items) > kept_count:
            self._items.pop()

    def __len__(self) -> int:
        return len(self._items)

    def _wait(self) -> None:
        if self._timer is None and self._items and not self._link.is_held():
            due = max(self._items[0][0], self._loop.time())
            self._timer = self._loop.call_at(due, self._due, context=NOBODY)

    def _due(self) -> None:
        self._timer = None
        # One item per step, as a socket is read once per step.
        if self._items and not self._link.is_held():
            _, kind, data = self._items.popleft()
            self._arrived(kind, data)
        self._wait()


class SimulatedTransport(asyncio.Transport):
    """One end of a connection."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        incoming: Pipe,
        outgoing: Pipe,
        protocol: asyncio.Protocol,
        own_address: tuple[str, int],
        far_address: tuple[str, int],
        window_size: int,
        next_piece_size: Callable[[int], int],
        context: Context | None = None,
    ) -> None:
        """next_piece_size: says how many of the bytes that may be sent travel together.

        context: in which the protocol is called, that of its process; None: that of whoever makes it happen.
        """
        super().__init__({"sockname": own_address, "peername": far_address, "socket": None})
        self._loop = loop
        self._incoming = incoming
        self._outgoing = outgoing
        self._protocol = protocol
        self._window_size = window_size
        self._next_piece_size = next_piece_size
        self._context = context
        outgoing.room_made = self._push
        # What the window has no room for.
        self._unsent = bytearray()
        # What arrived while reading was paused; an END waits behind it as None.
        self._unread: deque[bytes | None] = deque()
        self._reading_is_paused = False
        self._writing_is_paused = False
        self._high_water, self._low_water = 64 << 10, 16 << 10
        self._is_closing = False
        # Set when connection_lost has been scheduled: it comes once.
        self._is_lost = False
        # The process of this end is gone: it calls nothing and hears nothing.
        self._is_dead = False

    # --- what the network calls -----------------------------------------------------------------

    @property
    def is_gone(self) -> bool:
        """Whether the protocol will hear nothing more."""
        return self._is_lost or self._is_dead

    def connect(self) -> None:
        """Tell the protocol that it has a transport."""
        self._enter(self._call, self._protocol.connection_made, self)

    def receive(self, kind: Kind, data: bytes) -> None:
        """Take what arrived."""
        if self._is_closing or self.is_gone:
            # Nobody reads here any more, and the kernel says so to whoever goes on writing.
            if kind is Kind.DATA:
                self._outgoing.put(Kind.RESET)
        elif kind is Kind.RESET:
            self.lose(ConnectionResetError("connection reset by peer"))
        elif kind in (Kind.DATA, Kind.END):
            self._unread.append(data if kind is Kind.DATA else None)
            self._enter(self._read)

    def lose(self, error: Exception | None) -> None:
        """End here, at once and without a word to the far end."""
        if self.is_gone:
            return
        self._is_closing = self._is_lost = True
        self._unsent.clear()
        self._unread.clear()
        self._soon(self._connection_lost, error)

    def die(self, *, silently: bool) -> None:
        """The process of this end is gone.  Its kernel closes the connection, if there still is a kernel."""
        self._is_dead = True
        self._unsent.clear()
        if not silently and not self._is_lost:
            self._outgoing.put(Kind.END)

    # --- reading --------------------------------------------------------------------------------

    def is_reading(self) -> bool:
        return not self._reading_is_paused and not self._is_closing

    def pause_reading(self) -> None:
        self._reading_is_paused = True

    def resume_reading(self) -> None:
        if self._reading_is_paused:
            self._reading_is_paused = False
            self._soon(self._read)

    def _read(self) -> None:
        while self._unread and self.is_reading() and not self._is_dead:
            data = self._unread.popleft()
            if data is None:
                if not self._call(self._protocol.eof_received):
                    self.close()
                return
            self._call(self._protocol.data_received, data)
            self._incoming.taken(len(data))

    # --- writing --------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"data must be bytes-like, not {type(data).__name__}")
        if self._is_closing or self._is_dead:
            return
        self._unsent += data
        self._push()
        if len(self._unsent) > self._high_water and not self._writing_is_paused:
            self._writing_is_paused = True
            self._call(self._protocol.pause_writing)

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return len(self._unsent)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return (self._low_water, self._high_water)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if high is None:
            high = 64 << 10 if low is None else 4 * low
        self._high_water, self._low_water = high, high // 4 if low is None else low

    def _push(self) -> None:
        """Send as much as the window has room for."""
        if self.is_gone:
            return
        while self._unsent:
            room = self._window_size - self._outgoing.in_flight_size
            if room <= 0:
                return
            size = self._next_piece_size(min(room, len(self._unsent)))
            self._outgoing.put(Kind.DATA, bytes(self._unsent[:size]))
            del self._unsent[:size]
        if self._writing_is_paused and len(self._unsent) <= self._low_water:
            self._writing_is_paused = False
            self._enter(self._call, self._protocol.resume_writing)
        if self._is_closing:
            self._outgoing.put(Kind.END)
            self.lose(None)

    # --- closing --------------------------------------------------------------------------------

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        if not self._is_closing and not self._is_dead:
            self._is_closing = True
            self._unread.clear()
            self._push()

    def abort(self) -> None:
        if not self.is_gone:
            self._outgoing.put(Kind.RESET)
            self.lose(None)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.Protocol)
        self._protocol = protocol

    def _connection_lost(self, error: Exception | None) -> None:
        if not self._is_dead:
            self._call(self._protocol.connection_lost, error)

    def _soon(self, method: Callable[..., Any], *args: Any) -> None:
        self._loop.call_soon(method, *args, context=self._context)

    def _enter(self, method: Callable[..., Any], *args: Any) -> None:
        """Have the process of this end do something: now, if it has none, or as soon as it runs."""
        if self._context is None:
            method(*args)
        else:
            self._soon(method, *args)

    def _call(self, method: Callable[..., Any], *args: Any) -> Any:
        """Call the protocol as asyncio does: what it raises goes to the loop's handler and ends the connection."""
        try:
            return method(*args)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._loop.call_exception_handler(
                {"message": f"{method.__qualname__} failed", "exception": error, "transport": self}
            )
            self.abort()
            return None
