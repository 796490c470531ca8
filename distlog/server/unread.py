"""What consumers have not read yet, in bytes: how much of it one connection, and all of them, may leave in this node's memory.

gRPC keeps what a client does not take, and nothing but the end of the connection frees it again.  So there has to be room before records
are read for it.  A connection that holds nothing always gets one read, whatever the others leave: who reads is served.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from distlog.errors import Overloaded
from distlog.server.limits import ServerLimits


class Unread:
    """What is held for all connections of a node."""

    def __init__(self, limits: ServerLimits) -> None:
        self._limits = limits
        # Of all readers: what was read, or is about to be, and was not taken.
        self.size = 0
        # By connection, while it has readers.
        self._connections: dict[str, _Connection] = {}
        # Those of whose readers some wait for room.
        self._waiting: dict[_Connection, None] = {}

    @contextmanager
    def reader(self, connection: str) -> Iterator[Reader]:
        """Yield what one tail of a connection asks for room; what it holds at the end is let go of."""
        found = self._connections.setdefault(connection, _Connection())
        found.reader_count += 1
        reader = Reader(self, found)
        try:
            yield reader
        finally:
            reader.release()
            found.reader_count -= 1
            if not found.reader_count:
                del self._connections[connection]

    def fits(self, connection: _Connection, size: int) -> bool:
        """Tell whether `size` bytes more may be held for a connection."""
        if connection.size == 0:
            return True
        limits = self._limits
        return (
            connection.size + size <= limits.connection_unread_size_max
            and self.size + size <= limits.unread_size_max
        )

    def change(self, connection: _Connection, size: int) -> None:
        """Count `size` bytes more, or fewer, and wake who may have room by that."""
        connection.size += size
        self.size += size
        if size < 0 and self._waiting:
            for each in list(self._waiting):
                each.has_changed.set()

    async def room_for(self, connection: _Connection, size: int) -> None:
        """Return when `size` bytes fit.  Raises Overloaded when that takes too long: the connection's readers do not read."""
        limits = self._limits
        ticket = object()
        connection.waiting[ticket] = size
        self._waiting[connection] = None
        try:
            async with asyncio.timeout(limits.unread_timeout_s):
                while not self._is_turn_of(connection, ticket):
                    connection.has_changed.clear()
                    await connection.has_changed.wait()
        except TimeoutError:
            queue = "bytes that the consumers of this connection have not read"
            raise Overloaded(queue=queue, limit=limits.connection_unread_size_max) from None
        finally:
            del connection.waiting[ticket]
            if not connection.waiting:
                del self._waiting[connection]
            # Those behind it may have room as well, once it has taken its own.
            connection.has_changed.set()

    def _is_turn_of(self, connection: _Connection, ticket: object) -> bool:
        """Tell whether there is room for who has this ticket, and for nobody who came before."""
        if not self.fits(connection, connection.waiting[ticket]):
            return False
        fitting = (each for each, size in connection.waiting.items() if self.fits(connection, size))
        return next(fitting) is ticket


class _Connection:
    """What is held for one connection."""

    def __init__(self) -> None:
        self.size = 0
        self.reader_count = 0
        # What readers wait for, in the order in which they came.
        self.waiting: dict[object, int] = {}
        self.has_changed = asyncio.Event()


class Reader:
    """The share of one tail."""

    def __init__(self, unread: Unread, connection: _Connection) -> None:
        self._unread = unread
        self._connection = connection
        self._size = 0

    async def room_for(self, size: int) -> None:
        """Return when `size` bytes may be read, which are held from then on.  Raises Overloaded."""
        assert not self._size, "what was read before is taken"
        # Without a look at who waits, a tail whose client reads would take its room again before they wake, each time.
        if self._connection.waiting or not self._unread.fits(self._connection, size):
            await self._unread.room_for(self._connection, size)
        self._hold(size)

    def has_read(self, size: int) -> bool:
        """Hold what the read really had; False, and nothing is held, if that is more than there is room for."""
        self.release()
        if not self._unread.fits(self._connection, size):
            return False
        self._hold(size)
        return True

    def release(self) -> None:
        """Nothing is held any more: the client has taken it."""
        if self._size:
            self._hold(-self._size)

    def _hold(self, size: int) -> None:
        self._size += size
        self._unread.change(self._connection, size)
